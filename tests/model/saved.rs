//! Files that the version before the redesign of devices saved still load, and give the numbers that they gave.
