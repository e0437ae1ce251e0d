//! Parts of axes, and windows over the steps, as nodes.

use crate::error::Result;
use crate::exchange::onnx::export::{Attribute, Exporter};
use crate::nn::{Conv1D, Conv1DTranspose, Padding, Part};

impl Exporter {
    pub(super) fn slice(&mut self, x: &str, axis: i64, parts: &[Part], shape: &[usize]) -> Result<String> {
        let mut names: Vec<String> = Vec::new();
        // What is filled is a margin of the elements beside it. A constant of as many elements would be larger than what a reader expects of a
        // file of this size.
        let mut before = Vec::new();
        for part in parts {
            let name = match *part {
                Part::Steps { count: 0, .. } | Part::Filled { count: 0, .. } => continue,
                Part::Steps { start, step, count } => {
                    // One element is the same whatever the step.
                    let step = if count == 1 { 1 } else { step as i64 };
                    let end = start as i64 + step * count as i64;
                    let end = if end < 0 { i64::MIN } else { end };
                    self.sliced(x, axis, start as i64, end, step)
                }
                Part::Range { start, stop, step } => {
                    // Beyond both ends of any axis.
                    let (first, last) = if step > 0 { (0, i64::MAX) } else { (i64::MAX, i64::MIN) };
                    let place = |at: Option<isize>, end: i64| at.map_or(end, |at| at as i64);
                    self.sliced(x, axis, place(start, first), place(stop, last), step as i64)
                }
                Part::Filled { value, count } => {
                    match names.pop() {
                        Some(last) => names.push(self.with_margin(&last, axis, value, [0, count])),
                        None => before.push((value, count)),
                    }
                    continue;
                }
            };
            let name = before
                .drain(..)
                .rev()
                .fold(name, |name, (value, count)| self.with_margin(&name, axis, value, [count, 0]));
            names.push(name);
        }
        // Nothing is there but what is filled.
        for (value, count) in before {
            let value = self.floats("margin", &vec![1; shape.len() + 1], &[value]);
            let mut own = shape.to_vec();
            if let Some(length) = usize::try_from(axis - 1).ok().and_then(|at| own.get_mut(at)) {
                *length = count;
            }
            names.push(self.for_every_sample(&value, x, &own));
        }
        match names.len() {
            0 => Err(self.unsupported("a slice without elements", "a tensor there has some")),
            1 => Ok(names.remove(0)),
            _ => {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                Ok(self.one("Concat", &names, &[("axis", Attribute::Int(axis))]))
            }
        }
    }

    /// A tensor with elements of one value before and after those of an axis.
    fn with_margin(&mut self, name: &str, axis: i64, value: f64, margins: [usize; 2]) -> String {
        let (margins, axis) = (self.ints(&margins.map(|count| count as i64)), self.ints(&[axis]));
        let value = self.floats("margin", &[], &[value]);
        self.one("Pad", &[name, &margins, &value, &axis], &[])
    }

    /// Margins of windows over so many steps.
    fn margins(&self, padding: Padding, steps: usize, reach: usize, stride: usize) -> Result<Vec<i64>> {
        if self.is_open && padding == Padding::Same && stride > 1 {
            let what = "padding `same` with strides above 1 and any number of steps";
            return Err(self.unsupported(what, "how much it is depends on the number; call Model::set_steps before"));
        }
        let (before, after) = match padding {
            Padding::Valid => (0, 0),
            Padding::Causal => (reach - 1, 0),
            Padding::Steps { before, after } => (before, after),
            Padding::Same => {
                let all = ((steps.div_ceil(stride) - 1) * stride + reach).saturating_sub(steps);
                (all / 2, all - all / 2)
            }
        };
        Ok(vec![before as i64, after as i64])
    }

    pub(super) fn convolution(&mut self, x: &str, layer: &Conv1D, shape: &[usize], scope: &str) -> Result<String> {
        let &[steps, _] = shape else { return Err(self.unsupported("a convolution", "it takes [steps, features]")) };
        let (kernel_shape, kernel) = self.required(&format!("{scope}kernel"))?;
        let &[size, width, filters] = &kernel_shape[..] else {
            return Err(self.unsupported("weights", "they have three axes"));
        };
        let turned: Vec<f64> = (0..filters)
            .flat_map(|f| (0..width).flat_map(move |w| (0..size).map(move |s| (s, w, f))))
            .map(|(s, w, f)| kernel[(s * width + w) * filters + f])
            .collect();
        let weight = self.constant(&format!("{scope}kernel"), &[filters, width, size], &turned);
        let bias = self
            .weight(&format!("{scope}bias"))
            .map(|(_, values)| self.constant(&format!("{scope}bias"), &[filters], &values));
        let reach = (size - 1) * layer.dilation_rate + 1;
        let attributes = [
            ("kernel_shape", Attribute::Ints(vec![size as i64])),
            ("strides", Attribute::Ints(vec![layer.strides as i64])),
            ("dilations", Attribute::Ints(vec![layer.dilation_rate as i64])),
            ("group", Attribute::Int(layer.groups as i64)),
            ("pads", Attribute::Ints(self.margins(layer.padding, steps, reach, layer.strides)?)),
        ];
        let x = self.transposed(x, &[0, 2, 1]);
        let inputs: Vec<&str> = [x.as_str(), &weight].into_iter().chain(bias.as_deref()).collect();
        let y = self.one("Conv", &inputs, &attributes);
        let y = self.transposed(&y, &[0, 2, 1]);
        self.activation(&y, layer.activation)
    }

    pub(super) fn transposed_convolution(
        &mut self,
        x: &str,
        layer: &Conv1DTranspose,
        shape: &[usize],
    ) -> Result<String> {
        let refused = |exporter: &Self| exporter.unsupported("a transposed convolution", "it takes [steps, features]");
        let &[steps, _] = shape else { return Err(refused(self)) };
        let (kernel_shape, kernel) = self.required("kernel")?;
        let &[size, filters, width] = &kernel_shape[..] else {
            return Err(self.unsupported("weights", "they have three axes"));
        };
        let turned: Vec<f64> = (0..width)
            .flat_map(|w| (0..filters).flat_map(move |f| (0..size).map(move |s| (s, f, w))))
            .map(|(s, f, w)| kernel[(s * filters + f) * width + w])
            .collect();
        let weight = self.constant("kernel", &[width, filters, size], &turned);
        let bias = self.weight("bias").map(|(_, values)| self.constant("bias", &[filters], &values));
        let (count, before) = layer.spread(steps).ok_or_else(|| refused(self))?;
        let reach = (size - 1) * layer.dilation_rate + 1;
        let spanned = (steps - 1) * layer.strides + reach;
        // What is left out at the end, or stands there besides; in ONNX that is at most a stride.
        let (after, more) = match spanned.checked_sub(before + count) {
            Some(after) => (after, 0),
            None => (0, before + count - spanned),
        };
        let attributes = [
            ("kernel_shape", Attribute::Ints(vec![size as i64])),
            ("strides", Attribute::Ints(vec![layer.strides as i64])),
            ("dilations", Attribute::Ints(vec![layer.dilation_rate as i64])),
            ("pads", Attribute::Ints(vec![before as i64, after as i64])),
            ("output_padding", Attribute::Ints(vec![more as i64])),
        ];
        let x = self.transposed(x, &[0, 2, 1]);
        let inputs: Vec<&str> = [x.as_str(), &weight].into_iter().chain(bias.as_deref()).collect();
        let y = self.one("ConvTranspose", &inputs, &attributes);
        let y = self.transposed(&y, &[0, 2, 1]);
        self.activation(&y, layer.activation)
    }

    pub(super) fn pool(
        &mut self,
        op: &str,
        x: &str,
        shape: &[usize],
        size: usize,
        strides: usize,
        padding: Padding,
    ) -> Result<String> {
        let &[steps, _] = shape else { return Err(self.unsupported("a pool", "it takes [steps, features]")) };
        let attributes = [
            ("kernel_shape", Attribute::Ints(vec![size as i64])),
            ("strides", Attribute::Ints(vec![strides as i64])),
            ("pads", Attribute::Ints(self.margins(padding, steps, size, strides)?)),
        ];
        let x = self.transposed(x, &[0, 2, 1]);
        let y = self.one(op, &[&x], &attributes);
        Ok(self.transposed(&y, &[0, 2, 1]))
    }
}
