//! Weights that PyTorch keeps as a length and a direction, [`weight_norm`](https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.parametrizations.weight_norm.html):
//! `w = g v / |v|`, put together.

use std::path::Path;

use super::format_error;
use crate::error::Result;
use crate::interop::safetensors::TensorFile;

/// Ends of the names of length and direction, and of the weight's: of the parametrization, and of the older hook.
const PAIRS: [(&str, &str); 2] = [(".original0", ".original1"), ("_g", "_v")];

/// Where a parametrized weight's own name stands in that of its parts.
const WITHIN: &str = "parametrizations.";

/// Reads a file, with weights in the place of their lengths and directions.
pub(super) fn read(path: &Path) -> Result<TensorFile> {
    let mut file = TensorFile::read(path)?;
    let names: Vec<String> = file.names().map(str::to_owned).collect();
    for name in names {
        for (of_length, of_direction) in PAIRS {
            let Some(stem) = name.strip_suffix(of_length) else { continue };
            let direction = format!("{stem}{of_direction}");
            // Of the older hook's names only those of weights: others may end so by chance.
            let own = stem.rsplit('.').next().unwrap_or_default();
            let is_pair = stem.contains(WITHIN) || of_length == "_g" && own.starts_with("weight");
            if !is_pair || !file.contains(&direction) {
                continue;
            }
            let ((shape_g, g), (shape, v)) = (file.floats::<f64>(&name)?, file.floats::<f64>(&direction)?);
            let weight = normalized((&shape_g, &g), (&shape, &v)).ok_or_else(|| {
                let problem = format!("{name} {shape_g:?} is no length for the vectors of {direction} {shape:?}");
                format_error(path, problem)
            })?;
            file.replace(&[&name, &direction], stem.replacen(WITHIN, "", 1), shape, &weight);
        }
    }
    Ok(file)
}

/// `g v / |v|`, where the axes that g has not with more than one element are those of a vector.
fn normalized((shape_g, g): (&[usize], &[f64]), (shape, v): (&[usize], &[f64])) -> Option<Vec<f64>> {
    let fits = shape_g.iter().zip(shape).all(|(a, b)| *a == 1 || a == b);
    if !(shape_g.len() == shape.len() && fits || g.len() == 1) {
        return None;
    }
    // Which element of g each element of v belongs to.
    let place = |index: usize| {
        let (mut rest, mut place, mut stride) = (index, 0, 1);
        for (axis, n) in shape.iter().enumerate().rev() {
            let at = rest % n;
            rest /= n;
            if g.len() > 1 && shape_g.get(axis).is_some_and(|own| *own != 1) {
                place += at * stride;
                stride *= n;
            }
        }
        place
    };
    let mut squares = vec![0.0; g.len()];
    for (index, value) in v.iter().enumerate() {
        *squares.get_mut(place(index))? += value * value;
    }
    let element = |(index, value): (usize, &f64)| {
        let place = place(index);
        Some(g.get(place)? * value / squares.get(place)?.sqrt())
    };
    v.iter().enumerate().map(element).collect()
}

#[cfg(test)]
mod tests {
    use super::normalized;

    #[test]
    fn vectors_get_their_lengths() {
        let v = [3.0, 4.0, 0.0, 2.0];
        assert_eq!(normalized((&[2, 1], &[10.0, 3.0]), (&[2, 2], &v)).unwrap(), [6.0, 8.0, 0.0, 3.0]);
        let columns = normalized((&[1, 2], &[3.0, 5.0]), (&[2, 2], &v)).unwrap();
        assert_eq!(columns[..1], [3.0]);
        assert!((columns[1] * columns[1] + columns[3] * columns[3] - 25.0).abs() < 1e-12);
        assert!(normalized((&[3, 1], &[1.0; 3]), (&[2, 2], &v)).is_none());
    }
}
