//! Minima without derivatives, for a handful of parameters.
#![expect(clippy::indexing_slicing, reason = "of corners, one more than the start has axes, and of their axes")]

/// The place and value of a minimum near `start`: Nelder and Mead's downhill simplex
/// ([1965](https://doi.org/10.1093/comjnl/7.4.308)), whose first edges are `size` long, with at most about `most` values of `f`.
/// A value that is NaN counts as infinite.
pub fn minimize(f: impl Fn(&[f64]) -> f64, start: &[f64], size: f64, most: usize) -> (Vec<f64>, f64) {
    let f = |at: &[f64]| Some(f(at)).filter(|value| !value.is_nan()).unwrap_or(f64::INFINITY);
    let mut corners: Vec<(Vec<f64>, f64)> = (0..=start.len())
        .map(|corner| {
            let mut at = start.to_vec();
            if let Some(axis) = corner.checked_sub(1) {
                at[axis] += size;
            }
            let value = f(&at);
            (at, value)
        })
        .collect();
    let mut used = corners.len();
    while used < most {
        corners.sort_by(|a, b| a.1.total_cmp(&b.1));
        let last = corners.len() - 1;
        let (best, worst) = (corners[0].1, corners[last].1);
        if last == 0 || (worst - best).abs() <= 1e-9 * best.abs() {
            break;
        }
        let centre: Vec<f64> =
            (0..start.len()).map(|axis| corners[..last].iter().map(|c| c.0[axis]).sum::<f64>() / last as f64).collect();
        let towards = |share: f64| -> Vec<f64> {
            centre.iter().zip(&corners[last].0).map(|(centre, worst)| centre + share * (worst - centre)).collect()
        };
        let reflected = towards(-1.0);
        let value = f(&reflected);
        used += 1;
        let (further, share) =
            if value < best { (true, -2.0) } else { (false, if value < worst { -0.5 } else { 0.5 }) };
        if !further && value < corners[last - 1].1 {
            corners[last] = (reflected, value);
            continue;
        }
        let tried = towards(share);
        let of_tried = f(&tried);
        used += 1;
        if of_tried < value.min(worst) {
            corners[last] = (tried, of_tried);
        } else if further {
            corners[last] = (reflected, value);
        } else {
            let first = corners[0].0.clone();
            for corner in &mut corners[1..] {
                corner.0.iter_mut().zip(&first).for_each(|(at, first)| *at = first + 0.5 * (*at - first));
                corner.1 = f(&corner.0);
                used += 1;
            }
        }
    }
    corners.into_iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minima() {
        let bowl = |at: &[f64]| (at[0] - 3.0).powi(2) + 10.0 * (at[1] + 1.0).powi(2);
        let (at, value) = minimize(bowl, &[0.0, 0.0], 1.0, 300);
        assert!(value < 1e-6 && (at[0] - 3.0).abs() < 1e-3, "{at:?} {value}");
        assert_eq!(minimize(|_| f64::NAN, &[1.0], 1.0, 50).1, f64::INFINITY);
        assert_eq!(minimize(|_| 2.0, &[], 1.0, 50).1, 2.0);
    }
}
