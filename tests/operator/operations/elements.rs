//! Elementwise operations, and copies between layouts.

use super::*;

pub fn activations(device: &Device) {
    let mut rng = Rng::new(3);
    for activation in Activation::ALL {
        for (rows, columns, with_bias) in [(1, 1, true), (3, 43, true), (129, 1, false), (5, 127, false)] {
            let len = rows * columns;
            let (x, bias) = (numbers(device, &mut rng, len, 3.0), numbers(device, &mut rng, columns, 1.0));
            let inputs: Vec<f64> = (0..len).map(|i| x[i] + if with_bias { bias[i % columns] } else { 0.0 }).collect();
            let expected: Vec<f64> = inputs.iter().map(|v| activation.apply(*v)).collect();
            let mut values = Tensor::new(device, &x);
            let mut kept = Tensor::poisoned(device, len);
            let bias = Tensor::new(device, &bias);
            let bias = with_bias.then(|| bias.get());
            device.add_bias_activate(activation, bias, values.get_mut(), Some(kept.get_mut())).unwrap();
            let what = format!("{activation:?} {rows} x {columns}");
            close(device, &kept.values(), &inputs, |_| 0.0, &format!("inputs of {what}"));
            // The sum is rounded, then a function of slope at most 2 with a few roundings of its own.
            let slack = |i: usize| 8.0 * sum_unit(device) * (2.0 + inputs[i].abs());
            close(device, &values.values(), &expected, slack, &what);

            // Backward reads what it is given: the rounded output or input.
            let given = if activation.derivative_needs_input() { &kept } else { &values };
            let v = given.values();
            let dy = numbers(device, &mut rng, len, 1.0);
            let slope = |i: usize| {
                let y = if activation.derivative_needs_input() { activation.apply(v[i]) } else { v[i] };
                activation.derivative(v[i], y)
            };
            let expected: Vec<f64> = (0..len).map(|i| dy[i] * slope(i)).collect();
            let mut dx = Tensor::poisoned(device, len);
            device.activation_gradient(activation, Tensor::new(device, &dy).get(), given.get(), dx.get_mut()).unwrap();
            close(device, &dx.values(), &expected, |_| 16.0 * sum_unit(device), &format!("gradient of {what}"));
        }
    }
}

pub fn elementwise(device: &Device) {
    let mut rng = Rng::new(5);
    for len in SIZES {
        let (a, b) = (numbers(device, &mut rng, len, 2.0), numbers(device, &mut rng, len, 2.0));
        let (ta, tb) = (Tensor::new(device, &a), Tensor::new(device, &b));
        let mut out = Tensor::poisoned(device, len);
        device.copy(ta.get(), out.get_mut()).unwrap();
        device.scale_add(1.0, tb.get(), 1.0, out.get_mut()).unwrap();
        let expected: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
        close(device, &out.values(), &expected, |i| sum_unit(device) * expected[i].abs(), "sum");
        let mut out = Tensor::poisoned(device, len);
        device.multiply(ta.get(), tb.get(), out.get_mut()).unwrap();
        let expected: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a * b).collect();
        close(device, &out.values(), &expected, |i| sum_unit(device) * expected[i].abs(), "product");
        let mut out = Tensor::poisoned(device, len);
        device.copy(ta.get(), out.get_mut()).unwrap();
        assert_eq!(out.values(), a);
        device.fill(out.get_mut(), -1.5).unwrap();
        assert_eq!(out.values(), vec![-1.5; len]);
        let mut limited = Tensor::new(device, &a);
        device.clip_by_value(0.5, limited.get_mut()).unwrap();
        assert_eq!(limited.values(), a.iter().map(|v| v.clamp(-0.5, 0.5)).collect::<Vec<_>>());
    }
    // Joined along the last axis and split again, beside columns that stay as they are.
    for (rows, left, right) in [(1, 1, 1), (5, 3, 31), (67, 33, 2)] {
        let width = left + right;
        let (a, b) = (numbers(device, &mut rng, rows * left, 1.0), numbers(device, &mut rng, rows * right, 1.0));
        let mut joined = Tensor::new(device, &vec![7.0; rows * (width + 1)]);
        let whole = |width: usize| Strides { offset: 0, strides: [0, 0, width as isize, 1] };
        let part = |first: usize| Strides { offset: first, strides: [0, 0, width as isize + 1, 1] };
        for (values, size, first) in [(&a, left, 0), (&b, right, left)] {
            let values = Tensor::new(device, values);
            let (from, to) = (whole(size), part(first));
            device.strided_copy([1, 1, rows, size], values.get(), from, joined.get_mut(), to, WeightGrad::Set).unwrap();
        }
        let got = joined.values();
        for r in 0..rows {
            let row = &got[r * (width + 1)..][..width + 1];
            assert_eq!(row, [&a[r * left..][..left], &b[r * right..][..right], &[7.0]].concat());
        }
        let mut back = Tensor::poisoned(device, rows * right);
        let (from, to) = (part(left), whole(right));
        device.strided_copy([1, 1, rows, right], joined.get(), from, back.get_mut(), to, WeightGrad::Set).unwrap();
        assert_eq!(back.values(), b);
    }
}

pub fn scaling(device: &Device) {
    let mut rng = Rng::new(1);
    for len in SIZES {
        let (x, y) = (numbers(device, &mut rng, len, 2.0), numbers(device, &mut rng, len, 2.0));
        let tensor = Tensor::new(device, &x);
        for (alpha, beta) in [(-0.75, 0.0), (0.3, 0.0), (1.0, 1.0), (0.3, -1.7)] {
            let mut out = Tensor::new(device, &if beta == 0.0 { vec![f64::NAN; len] } else { y.clone() });
            device.scale_add(alpha, tensor.get(), beta, out.get_mut()).unwrap();
            let read = |i: usize| if beta == 0.0 { 0.0 } else { beta * y[i] };
            let expected: Vec<f64> = (0..len).map(|i| alpha * x[i] + read(i)).collect();
            // Two constants, two products and a sum.
            let slack = |i: usize| 3.0 * sum_unit(device) * ((alpha * x[i]).abs() + read(i).abs());
            close(device, &out.values(), &expected, slack, &format!("{alpha} x + {beta} y"));
        }
        let mut scaled = Tensor::new(device, &x);
        device.scale(0.3, scaled.get_mut()).unwrap();
        let expected: Vec<f64> = x.iter().map(|v| 0.3 * v).collect();
        close(device, &scaled.values(), &expected, |i| 2.0 * sum_unit(device) * expected[i].abs(), "scale");
    }
    let mut y = Tensor::new(device, &[1.0, 2.0]);
    device.scale_add(1.0, Tensor::new(device, &[f64::NAN, 3.0]).get(), 1.0, y.get_mut()).unwrap();
    same(&y.values(), &[f64::NAN, 5.0], "NaN stays NaN");
}

/// Random layouts: any order of axes, forwards and backwards, with gaps between them; what is read may repeat.
pub fn strided_copies(device: &Device) {
    let mut rng = Rng::new(2);
    for case in 0..80 {
        let shape: [usize; 4] = std::array::from_fn(|_| 1 + rng.below(if case % 4 == 0 { 9 } else { 4 }));
        let mut layout = |repeats: bool| {
            let mut order = [0, 1, 2, 3];
            for i in (1..4).rev() {
                order.swap(i, rng.below(i + 1));
            }
            // Most cases are dense along the last axis, for which there is a faster way.
            if rng.chance(0.5) {
                order = [3, 0, 1, 2];
            }
            let (mut strides, mut offset, mut span) = ([0isize; 4], rng.below(3), 1usize);
            for axis in order {
                if repeats && rng.chance(0.3) {
                    continue;
                }
                let gap = if rng.chance(0.3) { rng.below(3) } else { 0 };
                let stride = span + gap;
                span += stride * (shape[axis] - 1);
                let backwards = rng.chance(0.3);
                strides[axis] = if backwards { -(stride as isize) } else { stride as isize };
                offset += if backwards { stride * (shape[axis] - 1) } else { 0 };
            }
            (Strides { offset, strides }, span + 3)
        };
        let ((from, from_len), (to, to_len)) = (layout(true), layout(false));
        let x = numbers(device, &mut rng, from_len, 2.0);
        for grad in GRADS {
            let before = numbers(device, &mut rng, to_len, 2.0);
            let mut expected = before.clone();
            let mut changed = vec![false; to_len];
            for i in 0..shape.iter().product() {
                let (l, k, j) = (i % shape[3], i / shape[3] % shape[2], i / shape[3] / shape[2] % shape[1]);
                let index = [i / shape[3] / shape[2] / shape[1], j, k, l];
                let at = |layout: Strides| {
                    let steps = index.iter().zip(layout.strides).map(|(i, stride)| *i as isize * stride);
                    (layout.offset as isize + steps.sum::<isize>()) as usize
                };
                expected[at(to)] = add_to(grad, before[at(to)], x[at(from)]);
                changed[at(to)] = true;
            }
            let mut out = Tensor::new(device, &before);
            device.strided_copy(shape, Tensor::new(device, &x).get(), from, out.get_mut(), to, grad).unwrap();
            let got = out.values();
            let what = format!("{shape:?} {from:?} {to:?} {grad:?}");
            close(device, &got, &expected, |i| sum_unit(device) * expected[i].abs(), &what);
            for i in 0..to_len {
                let exact = grad == WeightGrad::Set || !changed[i];
                assert!(!exact || got[i] == expected[i], "{what}: element {i} is moved, not computed");
            }
        }
    }
    // Nothing to copy.
    let mut out = Tensor::new(device, &[7.0]);
    let wild = Strides { offset: 99, strides: [-5, 1000, 3, 0] };
    device
        .strided_copy([2, 0, 3, 1], Tensor::new(device, &[]).get(), wild, out.get_mut(), wild, WeightGrad::Set)
        .unwrap();
    assert_eq!(out.values(), [7.0]);
}

pub fn strided_copies_that_do_not_fit(device: &Device) {
    let x = Tensor::new(device, &[1.0; 12]);
    let rows = |offset: usize, strides: [isize; 4]| Strides { offset, strides };
    let fits = rows(0, [0, 4, 1, 0]);
    for (from, to, tensor) in [
        (rows(1, [0, 4, 1, 0]), fits, "from"),
        (rows(3, [0, -4, 1, 0]), fits, "from"),
        (rows(0, [0, isize::MAX, isize::MAX, 0]), fits, "from"),
        (rows(usize::MAX, [0, 4, 1, 0]), fits, "from"),
        (fits, rows(1, [0, 4, 1, 0]), "to"),
        (fits, rows(0, [0, -4, 1, 0]), "to"),
        (fits, rows(0, [0, isize::MIN, 1, 0]), "to"),
        // Two indices for one element.
        (fits, rows(0, [0, 0, 1, 0]), "to"),
        (fits, rows(0, [0, 3, 1, 0]), "to"),
        (fits, rows(2, [0, 1, -1, 0]), "to"),
    ] {
        let mut out = Tensor::new(device, &[7.0; 12]);
        let result = device.strided_copy([1, 3, 4, 1], x.get(), from, out.get_mut(), to, WeightGrad::Set);
        assert!(matches!(&result, Err(Error::Shape { tensor: t, .. }) if t == tensor), "{from:?} {to:?}: {result:?}");
        assert_eq!(out.values(), [7.0; 12], "nothing was written");
    }
    // Axes of one index need no stride.
    let mut out = Tensor::new(device, &[7.0; 12]);
    device.strided_copy([1, 3, 4, 1], x.get(), fits, out.get_mut(), fits, WeightGrad::Set).unwrap();
    assert_eq!(out.values(), [1.0; 12]);
}
