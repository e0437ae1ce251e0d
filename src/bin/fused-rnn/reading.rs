//! How a CSV file is read: the options that `train`, `predict` and `evaluate` share.

use fused_rnn::data::{CsvOptions, DateOrder, DecimalMark, RowOrder};
use fused_rnn::{Error, Result};

/// A decimal mark.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Decimal {
    /// 1234.5 or 1,234.5.
    Point,
    /// 1234,5 or 1.234,5.
    Comma,
}

/// Yes or no.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum YesNo {
    Yes,
    No,
}

/// Which number of a date comes first.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Dates {
    /// 31/12/2020.
    DayFirst,
    /// 12/31/2020.
    MonthFirst,
}

/// What is not told is found out from the file, or known from the model.
#[derive(Clone, Default, clap::Args)]
#[command(next_help_heading = "How a CSV file is read")]
pub struct ReadingArgs {
    /// What divides the cells: a character, tab or space [default: , ; tab or |, whichever does].
    #[arg(long, value_name = "CHARACTER")]
    pub delimiter: Option<String>,
    /// Decimal mark [default: the one that the numbers have].
    #[arg(long, value_enum, value_name = "MARK")]
    pub decimal: Option<Decimal>,
    /// Encoding, such as utf-8, windows-1252, iso-8859-2 or utf-16le [default: that of the byte order mark, else UTF-8, else windows-1252].
    #[arg(long, value_name = "LABEL")]
    pub encoding: Option<String>,
    /// Whether the first row holds the columns' names [default: where it is unlike the rows below].
    #[arg(long, value_enum, value_name = "YES|NO")]
    pub header: Option<YesNo>,
    /// Cells that are missing values besides NA, NaN, null and the like, with commas between, as in --missing=?,-999.
    #[arg(long, value_name = "TEXTS", value_delimiter = ',', allow_hyphen_values = true)]
    pub missing: Vec<String>,
    /// Whether the day or the month comes first in dates such as 03/04/2020 [default: whichever makes the dates evenly spaced].
    #[arg(long, value_enum, value_name = "ORDER")]
    pub dates: Option<Dates>,
    /// Column of the rows' dates, by name or number [default: the first that holds any].
    #[arg(long, value_name = "COLUMN")]
    pub time: Option<String>,
    /// Sort the rows by their dates; --sort=no takes them as they stand [default: rows out of order are refused].
    #[arg(long, value_enum, value_name = "YES|NO", num_args = 0..=1, require_equals = true, default_missing_value = "yes")]
    pub sort: Option<YesNo>,
    /// Only the rows with this cell, as in --where symbol=MSFT: one series of a panel. May be given several times.
    #[arg(long = "where", value_name = "COLUMN=TEXT")]
    pub only: Vec<String>,
}

impl ReadingArgs {
    /// The same for the library.
    pub fn options(&self) -> Result<CsvOptions> {
        let delimiter = |text: &String| match text.as_str() {
            "tab" | "\\t" => Ok('\t'),
            "comma" => Ok(','),
            "semicolon" => Ok(';'),
            "pipe" => Ok('|'),
            "space" => Ok(' '),
            _ => text.chars().next().filter(|c| c.len_utf8() == text.len()).ok_or_else(|| Error::InvalidOption {
                option: "delimiter".to_owned(),
                expected: "one character, tab or space".to_owned(),
                got: format!("{text:?}"),
            }),
        };
        let pair = |text: &String| match text.split_once('=') {
            Some((column, value)) if !column.is_empty() => Ok((column.trim().to_owned(), value.trim().to_owned())),
            _ => Err(Error::InvalidOption {
                option: "where".to_owned(),
                expected: "a column and the cell that its rows have, as in symbol=MSFT".to_owned(),
                got: text.clone(),
            }),
        };
        Ok(CsvOptions {
            delimiter: self.delimiter.as_ref().map(delimiter).transpose()?,
            decimal: self.decimal.map(|decimal| match decimal {
                Decimal::Point => DecimalMark::Point,
                Decimal::Comma => DecimalMark::Comma,
            }),
            encoding: self.encoding.clone(),
            header: self.header.map(|header| header == YesNo::Yes),
            missing: self.missing.iter().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()).collect(),
            dates: self.dates.map(|dates| match dates {
                Dates::DayFirst => DateOrder::DayFirst,
                Dates::MonthFirst => DateOrder::MonthFirst,
            }),
            time: self.time.clone(),
            order: match self.sort {
                None => RowOrder::Check,
                Some(YesNo::Yes) => RowOrder::Sort,
                Some(YesNo::No) => RowOrder::Keep,
            },
            only: self.only.iter().map(pair).collect::<Result<_>>()?,
        })
    }

    /// The options, and of those of a model what these do not say.
    pub fn options_or(&self, of_model: &CsvOptions) -> Result<CsvOptions> {
        Ok(self.options()?.or(of_model))
    }

    /// The options by name, and whether they are given.
    pub fn given(&self) -> [(&'static str, bool); 9] {
        [
            ("delimiter", self.delimiter.is_some()),
            ("decimal", self.decimal.is_some()),
            ("encoding", self.encoding.is_some()),
            ("header", self.header.is_some()),
            ("missing", !self.missing.is_empty()),
            ("dates", self.dates.is_some()),
            ("time", self.time.is_some()),
            ("sort", self.sort.is_some()),
            ("where", !self.only.is_empty()),
        ]
    }
}
