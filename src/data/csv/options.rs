//! How a CSV file is to be read: [`CsvOptions`]. What is not said is found out from the file.

use serde::{Deserialize, Serialize};

use crate::data::time::DateOrder;

/// What stands between the whole part of a number and its decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DecimalMark {
    /// `1234.5`, `1,234.5`.
    Point,
    /// `1234,5`, `1.234,5`.
    Comma,
}

impl DecimalMark {
    /// The name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            DecimalMark::Point => "point",
            DecimalMark::Comma => "comma",
        }
    }
}

/// What is done about the order of rows in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RowOrder {
    /// Rows whose dates do not grow are refused.
    #[default]
    Check,
    /// They are sorted by their dates; a date that is there twice is still refused.
    Sort,
    /// They are taken as they stand, whatever their dates are.
    Keep,
}

/// How a CSV file is to be read. The default finds everything out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CsvOptions {
    /// What divides the cells of a row: a character of ASCII, as `,`, `;`, `|` or a tab.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<char>,
    /// The decimal mark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decimal: Option<DecimalMark>,
    /// The encoding by its label of the [WHATWG](https://encoding.spec.whatwg.org/#names-and-labels): `utf-8`, `windows-1252`, `utf-16le`, ….
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// Whether the first row holds the columns' names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<bool>,
    /// Cells that are gaps besides those that always are ([`MISSING`](crate::data::csv::MISSING)): texts, or numbers in whatever way they are written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// Whether the day or the month comes first in dates such as `03/04/2020`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dates: Option<DateOrder>,
    /// The column of the rows' times, by name or number as for [`ColumnChoice::Named`](crate::data::ColumnChoice::Named); else the first that
    /// holds dates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// What is done about the order of rows in time.
    #[serde(skip_serializing_if = "is_default")]
    pub order: RowOrder,
    /// Only the rows in which these columns have these cells: one series of a panel.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<(String, String)>,
}

fn is_default(order: &RowOrder) -> bool {
    *order == RowOrder::default()
}

impl CsvOptions {
    /// Whether nothing is said.
    pub fn is_default(&self) -> bool {
        *self == CsvOptions::default()
    }

    /// These, and of `other` what these do not say.
    pub fn or(self, other: &CsvOptions) -> CsvOptions {
        CsvOptions {
            delimiter: self.delimiter.or(other.delimiter),
            decimal: self.decimal.or(other.decimal),
            encoding: self.encoding.or_else(|| other.encoding.clone()),
            header: self.header.or(other.header),
            missing: if self.missing.is_empty() { other.missing.clone() } else { self.missing },
            dates: self.dates.or(other.dates),
            time: self.time.or_else(|| other.time.clone()),
            order: if self.order == RowOrder::Check { other.order } else { self.order },
            only: if self.only.is_empty() { other.only.clone() } else { self.only },
        }
    }
}
