//! The `fused-rnn` program: one file a subcommand. Exit codes: 0 success, 1 the answer is no (a case failed), 2 an error.
// What could panic says why it cannot: docs/development.md, "No panic". Tests may.
#![cfg_attr(
    not(test),
    warn(
        clippy::exit,
        clippy::expect_used,
        clippy::get_unwrap,
        clippy::indexing_slicing,
        clippy::missing_panics_doc,
        clippy::panic,
        clippy::panic_in_result_fn,
        clippy::string_slice,
        clippy::todo,
        clippy::unimplemented,
        clippy::unreachable,
        clippy::unwrap_in_result,
        clippy::unwrap_used
    )
)]

mod backtest;
mod baselines;
mod bench;
mod calendar;
mod classified;
mod data_file;
mod descriptor_args;
mod device;
mod errors;
mod evaluate;
mod export;
mod future;
mod gradcheck;
mod import;
mod info;
mod interrupt;
mod longest;
mod mistyped;
mod network;
mod output;
mod panel;
mod parity;
mod pictures;
mod plot;
mod predict;
mod progress;
mod reading;
mod report;
mod rows;
mod search;
mod summary;
mod train;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use mistyped::CommandLine;

/// Recurrent operators (RNN, LSTM, GRU): check them, train with them, forecast with them.
#[derive(Parser)]
#[command(name = "fused-rnn", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train a model on columns of a CSV file, or on sequences of a .ts file, and plot how well it does.
    Train(Box<train::Args>),
    /// Continue a series with a trained model, or say the classes or numbers of sequences.
    Predict(Box<predict::Args>),
    /// Measure how well a trained model does on data.
    Evaluate(Box<evaluate::Args>),
    /// Train anew at several points of a series, and measure the forecasts of what follows each.
    Backtest(Box<backtest::Args>),
    /// Try windows and sizes of networks on a series, and say which forecast its validation part best.
    Search(Box<search::Args>),
    /// Print what a trained model is made of, and what it is for.
    Summary(summary::Args),
    /// Draw the layers of a trained model.
    Plot(plot::Args),
    /// Read models of other programs (ONNX), and save or check them.
    Import(import::Args),
    /// Write a trained or imported model as a file of other programs (ONNX).
    Export(export::Args),
    /// Compare a backend with results of PyTorch, Keras, ONNX and ONNX Runtime.
    Parity(parity::Args),
    /// Check gradients by finite differences.
    Gradcheck(Box<gradcheck::Args>),
    /// Time an operator.
    Bench(Box<bench::Args>),
    /// Say what this build and this machine can do.
    Info(Box<info::Args>),
}

fn main() -> ExitCode {
    interrupt::outlive_file_limits();
    // Not `std::env::args`, which panics where an argument is no Unicode.
    let arguments = std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned());
    let line = CommandLine::new(&Cli::command(), arguments);
    let given = Cli::command().try_get_matches().unwrap_or_else(|error| line.with_suggestion(error).exit());
    let cli = Cli::from_arg_matches(&given).unwrap_or_else(|error| error.exit());
    let outcome = match cli.command {
        Command::Train(mut args) => {
            args.settings = given.subcommand_matches("train").map(train::settings).unwrap_or_default();
            train::run(*args)
        }
        Command::Predict(args) => predict::run(*args),
        Command::Evaluate(args) => evaluate::run(*args),
        Command::Backtest(args) => backtest::run(*args),
        Command::Search(args) => search::run(*args),
        Command::Summary(args) => summary::run(args),
        Command::Plot(args) => plot::run(args),
        Command::Export(args) => export::run(args),
        Command::Import(args) => import::run(args),
        Command::Parity(args) => parity::run(args),
        Command::Gradcheck(args) => gradcheck::run(*args),
        Command::Bench(args) => bench::run(*args),
        Command::Info(args) => info::run(*args),
    };
    outcome.unwrap_or_else(|error| {
        let error = line.as_typed(error);
        // Not `eprintln!`, which panics where standard error is closed.
        let _ = writeln!(std::io::stderr(), "error: {error}");
        ExitCode::from(2)
    })
}
