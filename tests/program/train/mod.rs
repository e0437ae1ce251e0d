//! `fused-rnn train`, `predict`, `evaluate`, `summary` and `plot`, run as a user runs them.
//!
//! | file | what |
//! |---|---|
//! | `forecasts` | a season at once: references, intervals, backtests, known columns, panels |
//! | `short` | short series and single steps: what is left out, why, and what the pictures show |
//! | `series` | forecasts of a column of a CSV file, alone or beside others |
//! | `sequences` | classes and numbers of sequences in a `.ts` file |
//! | `rows` | classes of rows of a CSV file |
//! | `csv` | how CSV files are read |
//! | `reading` | what a file leaves open: rows without a value yet, columns, dates and hours that are not told |
//! | `faults` | pipes, full disks, folders and outputs that cannot be written |
//! | `resume` | trainings that were killed or stopped, and go on |
//! | `signals` | signals, and two trainings in one folder |
//! | `devices` | other devices, mixed precision |
//! | `command` | the program's commands, and what they print |

mod command;
mod csv;
mod devices;
#[cfg(unix)]
mod faults;
mod forecasts;
mod reading;
#[cfg(unix)]
mod resume;
mod rows;
mod sequences;
mod series;
mod short;
#[cfg(unix)]
mod signals;
