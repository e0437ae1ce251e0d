//! `fused-rnn train`, `predict`, `evaluate`, `summary` and `plot`, run as a user runs them.
//!
//! | file | what |
//! |---|---|
//! | `forecasts` | a season at once: references, intervals, backtests, known columns, panels |
//! | `series` | forecasts of a column of a CSV file, alone or beside others |
//! | `sequences` | classes and numbers of sequences in a `.ts` file |
//! | `rows` | classes of rows of a CSV file |
//! | `csv` | how CSV files are read |
//! | `signals` | signals, and two trainings in one folder |
//! | `devices` | other devices, mixed precision |
//! | `command` | the program's commands, and what they print |

mod command;
mod csv;
mod devices;
mod forecasts;
mod rows;
mod sequences;
mod series;
#[cfg(unix)]
mod signals;
