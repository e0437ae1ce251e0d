//! What people mistype: options are called by the names that they are typed with, and a name that is none by the one it may stand for.

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use fused_rnn::Error;
use strsim::osa_distance;

/// What the library calls some options by, and their names on the command line.
const OTHER_NAMES: [(&str, &str); 3] =
    [("hidden_size", "units"), ("rate of dropout", "dropout"), ("level of an interval", "intervals")];

/// The command line: its options, and what of them was typed.
pub struct CommandLine {
    options: Vec<String>,
    typed: Vec<String>,
}

impl CommandLine {
    /// Of a program with subcommands.
    pub fn new(program: &Command, arguments: impl Iterator<Item = String>) -> Self {
        let typed: Vec<String> = arguments.collect();
        let command = typed.iter().find_map(|word| program.find_subcommand(word));
        let options = command.into_iter().flat_map(Command::get_arguments).filter_map(|argument| argument.get_long());
        CommandLine { options: options.map(str::to_owned).collect(), typed }
    }

    /// An error of the parser, with the option that an unknown one may stand for. The parser finds those that begin alike, but no letters
    /// changed round.
    pub fn with_suggestion(&self, mut error: clap::Error) -> clap::Error {
        if error.kind() == ErrorKind::UnknownArgument
            && error.get(ContextKind::SuggestedArg).is_none()
            && let Some(ContextValue::String(typed)) = error.get(ContextKind::InvalidArg)
            && let Some(near) = self.nearest(typed.trim_start_matches('-'))
        {
            let near = ContextValue::String(format!("--{near}"));
            error.remove(ContextKind::Suggested);
            error.insert(ContextKind::SuggestedArg, near);
        }
        error
    }

    /// The option that is one change away from a word, of a long word two.
    fn nearest(&self, word: &str) -> Option<&str> {
        let most = if word.chars().count() < 6 { 1 } else { 2 };
        // Letters changed round are one change.
        let distances = self.options.iter().map(|option| (osa_distance(word, option), option));
        distances.filter(|(distance, _)| *distance <= most).min().map(|(_, option)| option.as_str())
    }

    /// The same error about an option that was typed, under the name that was typed.
    pub fn as_typed(&self, error: Error) -> Error {
        match error {
            Error::ZeroSize { name } => match self.option(name) {
                Some(option) => Error::InvalidOption { option, expected: "1 or more".to_owned(), got: "0".to_owned() },
                None => Error::ZeroSize { name },
            },
            Error::InvalidOption { option, expected, got } => {
                let option = self.option(&option).unwrap_or(option);
                Error::InvalidOption { option, expected, got }
            }
            other => other,
        }
    }

    /// `--units` for `hidden_size`, where it was typed.
    fn option(&self, name: &str) -> Option<String> {
        let plain = name.replace('_', "-");
        let other = OTHER_NAMES.iter().find(|(other, _)| *other == name).map(|(_, option)| (*option).to_owned());
        let known = std::iter::once(plain).chain(other).find(|name| self.options.contains(name))?;
        let option = format!("--{known}");
        let is_typed =
            |word: &String| word.strip_prefix(&option).is_some_and(|rest| rest.is_empty() || rest.starts_with('='));
        self.typed.iter().any(is_typed).then_some(option)
    }
}
