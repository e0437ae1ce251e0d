//! Rows: of a matrix, of a table, of a list; and which of them count.

use super::products::AXES;
use super::*;

pub fn tables(device: &Device) {
    let mut rng = Rng::new(9);
    // Fewer rows than indices, and more.
    for (rows, count, width) in [(1, 1, 1), (3, 40, 5), (5, 300, 130), (50, 7, 3), (400, 140, 2), (2, 1, 257)] {
        let table = numbers(device, &mut rng, rows * width, 1.0);
        let indices: Vec<u32> = (0..count).map(|_| rng.below(rows) as u32).collect();
        let placed = Rows::new(device, &indices);
        let mut status = Status::new(device);
        let mut out = Tensor::poisoned(device, count * width);
        device
            .gather(width, Tensor::new(device, &table).get(), placed.get(), out.get_mut(), status.of_indices(1))
            .unwrap();
        let expected: Vec<f64> = indices.iter().flat_map(|i| table[*i as usize * width..][..width].to_vec()).collect();
        assert_eq!(out.values(), expected);

        let dout = numbers(device, &mut rng, count * width, 1.0);
        for grad in GRADS {
            let mut sums: Vec<f64> = if grad == WeightGrad::Add { table.clone() } else { vec![0.0; rows * width] };
            let mut magnitude: Vec<f64> = sums.iter().map(|v| v.abs()).collect();
            for (i, index) in indices.iter().enumerate() {
                for k in 0..width {
                    sums[*index as usize * width + k] += dout[i * width + k];
                    magnitude[*index as usize * width + k] += dout[i * width + k].abs();
                }
            }
            let mut run = || {
                let mut dtable = Tensor::new(device, &start(grad, &table));
                let dout = Tensor::new(device, &dout);
                let status = status.of_indices(1);
                device.scatter_add(width, placed.get(), dout.get(), dtable.get_mut(), grad, status).unwrap();
                dtable.values()
            };
            let got = run();
            let slack = |i: usize| (count + 2) as f64 * sum_unit(device) * magnitude[i];
            close(device, &got, &sums, slack, &format!("{rows} rows, {count} indices, {grad:?}"));
            assert_eq!(got, run());
        }
        assert_eq!(status.read(), Report::default());
    }
}

/// Places of a list that name no row read as zeros, and take no part in a sum.
pub fn absent_rows(device: &Device) {
    let mut rng = Rng::new(17);
    for (rows, count, width) in [(1, 3, 1), (5, 70, 33), (40, 9, 2)] {
        let table = numbers(device, &mut rng, rows * width, 1.0);
        let list: Vec<u32> =
            (0..count).map(|_| if rng.chance(0.4) { NO_ROW } else { rng.below(rows) as u32 }).collect();
        let (placed, mut status) = (Rows::new(device, &list), Status::new(device));
        let mut out = Tensor::poisoned(device, count * width);
        let of_table = Tensor::new(device, &table);
        device.gather(width, of_table.get(), placed.get(), out.get_mut(), status.of_indices(1)).unwrap();
        let row = |row: &u32| match *row {
            NO_ROW => vec![0.0; width],
            row => table[row as usize * width..][..width].to_vec(),
        };
        assert_eq!(out.values(), list.iter().flat_map(row).collect::<Vec<_>>());
        // Whole numbers, whose sums are exact; what stands beside no row is not read.
        let dout: Vec<f64> = (0..count * width)
            .map(|i| if list[i / width] == NO_ROW { f64::NAN } else { rng.below(4) as f64 })
            .collect();
        let mut expected = vec![0.0; rows * width];
        for (i, row) in list.iter().enumerate().filter(|(_, row)| **row != NO_ROW) {
            (0..width).for_each(|k| expected[*row as usize * width + k] += dout[i * width + k]);
        }
        let mut dtable = Tensor::poisoned(device, rows * width);
        let (dout, set) = (Tensor::new(device, &dout), WeightGrad::Set);
        device.scatter_add(width, placed.get(), dout.get(), dtable.get_mut(), set, status.of_indices(1)).unwrap();
        assert_eq!(dtable.values(), expected);
        assert_eq!(status.read(), Report::default());
    }
}

/// On the host an error, on a device a row of NaN and a code in the status.
pub fn indices_outside_the_table(device: &Device) {
    for (rows, indices) in [(3, vec![0u32, 3, 2, 1]), (9, vec![8, u32::MAX - 1, NO_ROW])] {
        let mut status = Status::new(device);
        let table = Tensor::new(device, &vec![1.0; rows * 2]);
        let placed = Rows::new(device, &indices);
        let mut out = Tensor::poisoned(device, indices.len() * 2);
        let gathered = device.gather(2, table.get(), placed.get(), out.get_mut(), status.of_indices(4));
        let mut dtable = Tensor::new(device, &vec![0.0; rows * 2]);
        let dout = Tensor::new(device, &vec![1.0; indices.len() * 2]);
        let scattered =
            device.scatter_add(2, placed.get(), dout.get(), dtable.get_mut(), WeightGrad::Add, status.of_indices(5));
        if device.is_host() {
            for result in [gathered, scattered] {
                let error = result.unwrap_err();
                assert!(matches!(&error, Error::InvalidOption { option, .. } if option == "rows[1]"), "{error}");
            }
            continue;
        }
        gathered.unwrap();
        scattered.unwrap();
        assert_eq!(status.read().bad_index, Some(4));
        let got = out.values();
        for (i, index) in indices.iter().enumerate() {
            let expected = match *index {
                NO_ROW => 0.0,
                index if (index as usize) < rows => 1.0,
                _ => f64::NAN,
            };
            same(&got[2 * i..][..2], &[expected; 2], &format!("row of index {index}"));
        }
        let total: f64 = dtable.values().iter().sum();
        assert_eq!(total, 2.0 * indices.iter().filter(|i| (**i as usize) < rows).count() as f64);
    }
}

pub fn rows_of_a_matrix(device: &Device) {
    let mut rng = Rng::new(3);
    for (rows, columns) in [(1, 1), (3, 5), (33, 4), (4, 129), (300, 7), (2, 0)] {
        let len = rows * columns;
        let (a, b) = (numbers(device, &mut rng, len, 2.0), numbers(device, &mut rng, len, 2.0));
        let mut factors = numbers(device, &mut rng, rows, 3.0);
        factors[rows / 2] = 0.0;
        let (ta, tf) = (Tensor::new(device, &a), Tensor::new(device, &factors));
        for inverse in [false, true] {
            let mut y = Tensor::poisoned(device, len);
            device.scale_rows(tf.get(), inverse, ta.get(), y.get_mut()).unwrap();
            let scaled = |i: usize| match (inverse, factors[i / columns]) {
                (false, factor) => a[i] * factor,
                (true, 0.0) => 0.0,
                (true, factor) => a[i] / factor,
            };
            let expected: Vec<f64> = (0..len).map(scaled).collect();
            let what = format!("{rows} x {columns}, inverse {inverse}");
            close(device, &y.values(), &expected, |i| 2.0 * sum_unit(device) * expected[i].abs(), &what);
        }
        // What is not selected does not leak.
        let mask: Vec<f64> = (0..rows).map(|_| if rng.chance(0.5) { 0.0 } else { rng.pick(&[1.0, -2.0]) }).collect();
        let hidden = |values: &[f64], hidden: bool| -> Vec<f64> {
            (0..len).map(|i| if (mask[i / columns] == 0.0) == hidden { f64::NAN } else { values[i] }).collect()
        };
        let (ta, tb, tm) = (
            Tensor::new(device, &hidden(&a, true)),
            Tensor::new(device, &hidden(&b, false)),
            Tensor::new(device, &mask),
        );
        for with_b in [false, true] {
            let mut out = Tensor::poisoned(device, len);
            device.select_rows(tm.get(), ta.get(), with_b.then(|| tb.get()), out.get_mut()).unwrap();
            let other = |i: usize| if with_b { b[i] } else { 0.0 };
            let expected: Vec<f64> = (0..len).map(|i| if mask[i / columns] == 0.0 { other(i) } else { a[i] }).collect();
            assert_eq!(out.values(), expected, "{rows} x {columns}, with b {with_b}");
        }
    }
}

pub fn maxima_along_an_axis(device: &Device) {
    let mut rng = Rng::new(5);
    for [outer, count, inner] in AXES {
        for (with_mask, with_nan) in [(false, false), (true, false), (true, true)] {
            // Few values, so that there are equals.
            let value = |rng: &mut Rng| match with_nan && rng.chance(0.05) {
                true => f64::NAN,
                false => rng.pick(&[-3.0, -2.0, -1.5, -1.0, f64::NEG_INFINITY]),
            };
            let x: Vec<f64> = (0..outer * count * inner).map(|_| value(&mut rng)).collect();
            // The first row has no valid element.
            let valid = |rng: &mut Rng, i: usize| i >= count && rng.chance(0.5);
            let mask: Vec<f64> =
                (0..outer * count).map(|i| if valid(&mut rng, i) { rng.pick(&[1.0, -0.5]) } else { 0.0 }).collect();
            let dy = numbers(device, &mut rng, outer * inner, 2.0);
            let (mut y, mut position) = (vec![0.0; outer * inner], vec![NO_ROW; outer * inner]);
            let mut dx = vec![0.0; outer * count * inner];
            for at in 0..outer * inner {
                let index = |c: usize| (at / inner * count + c) * inner + at % inner;
                let mut valid = (0..count).filter(|c| !with_mask || mask[at / inner * count + c] != 0.0);
                let first_nan = valid.clone().find(|c| x[index(*c)].is_nan());
                let most = valid.clone().map(|c| x[index(c)]).fold(f64::NEG_INFINITY, f64::max);
                let best = first_nan.or_else(|| valid.find(|c| x[index(*c)] == most));
                if let Some(c) = best {
                    (y[at], position[at]) = (x[index(c)], c as u32);
                    dx[index(c)] = dy[at];
                }
            }
            let sizes = [outer, count, inner];
            let what = format!("{sizes:?}, mask {with_mask}, NaN {with_nan}");
            let mask = Tensor::new(device, &mask);
            let (mut got, mut place) = (Tensor::poisoned(device, y.len()), Rows::poisoned(device, y.len()));
            let x = Tensor::new(device, &x);
            let mask = with_mask.then(|| mask.get());
            device.max_axis(sizes, x.get(), mask, got.get_mut(), place.get_mut()).unwrap();
            same(&got.values(), &y, &what);
            assert_eq!(place.values(), position, "{what}");
            let mut slope = Tensor::poisoned(device, dx.len());
            let dy = Tensor::new(device, &dy);
            device.max_axis_gradient(sizes, dy.get(), place.get(), slope.get_mut()).unwrap();
            assert_eq!(slope.values(), dx, "gradient of {what}");
        }
    }
}

pub fn masks_of_a_value(device: &Device) {
    let mut rng = Rng::new(11);
    for (rows, columns) in [(5, 1), (130, 1), (7, 3), (40, 33), (130, 31), (3, 100), (9, 32), (0, 4)] {
        for value in [0.0, -1.0, 0.1] {
            let held = rounded(device, value);
            let mut x = vec![held; rows * columns];
            let mut expected = vec![0.0; rows];
            for r in 0..rows {
                if rng.chance(0.5) {
                    x[r * columns + rng.below(columns)] = rng.pick(&[held + 0.5, f64::NAN, f64::INFINITY]);
                    expected[r] = 1.0;
                }
            }
            let mut mask = Tensor::poisoned(device, rows);
            device.mask_not_equal(columns, Tensor::new(device, &x).get(), value, mask.get_mut()).unwrap();
            assert_eq!(mask.values(), expected, "{rows} x {columns}, {value}");
        }
    }
}

/// The five lists of a mask, from their definitions.
struct Order {
    rows: Vec<u32>,
    inverse: Vec<u32>,
    hold: Vec<u32>,
    lengths: Vec<u32>,
    any: Vec<f64>,
}

impl Order {
    fn new(steps: usize, reverse: bool, mask: &[f64]) -> Self {
        let mut order = Order { rows: vec![], inverse: vec![], hold: vec![], lengths: vec![], any: vec![] };
        for (b, mask) in mask.chunks(steps).enumerate() {
            let row = |t: usize| (b * steps + t) as u32;
            let valid: Vec<usize> = (0..steps).filter(|t| mask[*t] != 0.0).collect();
            let place = |t: usize| valid.iter().position(|v| *v == t);
            let or_none = |place: Option<usize>| place.map_or(NO_ROW, row);
            order.rows.extend((0..steps).map(|p| valid.get(p).map_or(NO_ROW, |t| row(*t))));
            order.inverse.extend((0..steps).map(|t| or_none(place(t))));
            order.hold.extend((0..steps).map(|t| match reverse {
                false => or_none((0..=t).rev().find_map(place)),
                true => or_none((t..steps).find_map(place)),
            }));
            order.lengths.push(valid.len().max(1) as u32);
            order.any.push(f64::from(!valid.is_empty()));
        }
        order
    }
}

pub fn orders_of_masks(device: &Device) {
    let mut rng = Rng::new(12);
    for (batch, steps) in [(1, 1), (2, 5), (4, 31), (3, 32), (5, 33), (3, 70), (9, 3)] {
        for (reverse, density) in [(false, 0.5), (true, 0.5), (false, 0.05), (true, 0.05), (false, 1.0), (true, 0.0)] {
            let mask: Vec<f64> =
                (0..batch * steps).map(|_| if rng.chance(density) { rng.pick(&[1.0, -0.5]) } else { 0.0 }).collect();
            let expected = Order::new(steps, reverse, &mask);
            let what = format!("{batch} x {steps}, reverse {reverse}, density {density}");
            let list = || Rows::poisoned(device, batch * steps);
            let (mut rows, mut inverse, mut hold) = (list(), list(), list());
            let (mut lengths, mut any) = (Rows::poisoned(device, batch), Tensor::poisoned(device, batch));
            let order = MaskOrder {
                rows: rows.get_mut(),
                inverse: inverse.get_mut(),
                hold: hold.get_mut(),
                lengths: lengths.get_mut(),
                any: any.get_mut(),
            };
            device.mask_order(steps, reverse, Tensor::new(device, &mask).get(), order).unwrap();
            assert_eq!(rows.values(), expected.rows, "rows of {what}");
            assert_eq!(inverse.values(), expected.inverse, "inverse of {what}");
            assert_eq!(hold.values(), expected.hold, "hold of {what}");
            assert_eq!(lengths.values(), expected.lengths, "lengths of {what}");
            assert_eq!(any.values(), expected.any, "any of {what}");

            for width in [1, 5, 33] {
                let x = numbers(device, &mut rng, batch * steps * width, 2.0);
                let picked = |list: &[u32]| -> Vec<f64> {
                    let row = |row: &u32| match *row {
                        NO_ROW => vec![0.0; width],
                        row => x[row as usize * width..][..width].to_vec(),
                    };
                    list.iter().flat_map(row).collect()
                };
                for list in [&rows, &inverse, &hold] {
                    let mut out = Tensor::poisoned(device, x.len());
                    device.gather(width, Tensor::new(device, &x).get(), list.get(), out.get_mut(), None).unwrap();
                    assert_eq!(out.values(), picked(&list.values()), "{what}, width {width}");
                }
                // The gradient of picking what is held, x being that of what was picked.
                let (mut sums, mut magnitudes) = (vec![0.0; x.len()], vec![0.0; x.len()]);
                for (at, held) in expected.hold.iter().enumerate().filter(|(_, held)| **held != NO_ROW) {
                    for f in 0..width {
                        sums[*held as usize * width + f] += x[at * width + f];
                        magnitudes[*held as usize * width + f] += x[at * width + f].abs();
                    }
                }
                let mut dx = Tensor::poisoned(device, x.len());
                let dy = Tensor::new(device, &x);
                device.hold_gradient(steps, width, hold.get(), dy.get(), dx.get_mut()).unwrap();
                let slack = |i: usize| steps as f64 * sum_unit(device) * magnitudes[i];
                close(device, &dx.values(), &sums, slack, &format!("gradient of {what}, width {width}"));
            }
        }
    }
}

/// On the host an error, on a device a row of NaN.
pub fn rows_outside(device: &Device) {
    let from = Tensor::new(device, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let mut out = Tensor::poisoned(device, 8);
    let rows = Rows::new(device, &[2, NO_ROW, 3, 0]);
    let result = device.gather(2, from.get(), rows.get(), out.get_mut(), None);
    if device.is_host() {
        let error = result.unwrap_err();
        assert!(matches!(&error, Error::InvalidOption { option, .. } if option == "rows[2]"), "{error}");
        return;
    }
    result.unwrap();
    same(&out.values(), &[5.0, 6.0, 0.0, 0.0, f64::NAN, f64::NAN, 1.0, 2.0], "rows");
}

pub fn numbers_as_indices(device: &Device) {
    let mut rng = Rng::new(13);
    for len in SIZES {
        let rows = 100;
        let expected: Vec<u32> = (0..len).map(|_| rng.below(rows) as u32).collect();
        let x: Vec<f64> = expected.iter().map(|i| f64::from(*i)).collect();
        let (mut out, mut status) = (Rows::poisoned(device, len), Status::new(device));
        let tensor = Tensor::new(device, &x);
        device.indices(rows, tensor.get(), out.get_mut(), status.of_indices(7)).unwrap();
        assert_eq!(out.values(), expected);
        assert_eq!(status.read(), Report::default());
        for bad in [-1.0, 0.5, 100.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let (at, mut x) = (len / 2, x.clone());
            x[at] = bad;
            let tensor = Tensor::new(device, &x);
            let (mut out, mut status) = (Rows::poisoned(device, len), Status::new(device));
            let result = device.indices(rows, tensor.get(), out.get_mut(), status.of_indices(7));
            if device.is_host() {
                let error = result.unwrap_err();
                let named = matches!(&error, Error::InvalidOption { option, .. } if *option == format!("element {at}"));
                assert!(named, "{bad}: {error}");
                continue;
            }
            result.unwrap();
            let mut expected = expected.clone();
            expected[at] = 0;
            assert_eq!(out.values(), expected, "{bad}");
            // The first code stays.
            let code = device.indices(rows, tensor.get(), out.get_mut(), status.of_indices(8));
            code.unwrap();
            assert_eq!(status.read(), Report { bad_index: Some(7), ..Report::default() }, "{bad}");
        }
    }
}
