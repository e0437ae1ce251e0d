//! How far numbers are from the truth, as a table.

use fused_rnn::figures::rounded;

use crate::output::WIDEST;

/// How far numbers of the test part are from the truth, in their unit.
pub struct Errors {
    pub rmse: f64,
    pub mae: f64,
    pub naive_rmse: f64,
    pub naive_mae: f64,
}

impl Errors {
    pub fn table(&self, head: &str, name: &str, naive: &str) -> String {
        let rows = [(name, self.rmse, self.mae), (naive, self.naive_rmse, self.naive_mae)];
        let width = rows.iter().map(|r| r.0.len()).max().unwrap_or(0).max(head.len()).min(WIDEST);
        let mut text = format!("\n{head:<width$}  {:>10}  {:>10}\n", "RMSE", "MAE");
        for (name, rmse, mae) in rows {
            text += &format!("{name:<width$}  {:>10}  {:>10}\n", rounded(rmse, 4), rounded(mae, 4));
        }
        let gain = 100.0 * (1.0 - self.rmse / self.naive_rmse);
        text += &if self.naive_rmse == 0.0 {
            "The naive forecast makes no error: the test part is constant.\n".to_owned()
        } else if gain > 0.0 {
            format!("The model's RMSE is {gain:.1} % below the naive one.\n")
        } else if gain.is_finite() {
            format!("The model does not beat the naive forecast: its RMSE is {} % above.\n", rounded(gain.abs(), 1))
        } else {
            "The values are too large to compare the errors.\n".to_owned()
        };
        text
    }
}
