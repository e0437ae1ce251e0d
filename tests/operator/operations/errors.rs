//! What does not fit: lengths, element types, tensors of other devices.

use super::*;

pub fn wrong_lengths(device: &Device) {
    let tensor = |len: usize| Tensor::new(device, &vec![1.0; len]);
    let (a, mut out, mut other, mut space) = (tensor(6), tensor(5), tensor(6), tensor(4096));
    let six = || Rows::new(device, &[0; 6]);
    let (lists, mut five) = (six(), Rows::new(device, &[9; 5]));
    let mut status = Status::new(device);
    let set = WeightGrad::Set;
    let is_shape = |result: fused_rnn::Result<()>| assert!(matches!(result, Err(Error::Shape { .. })), "{result:?}");
    let is_zero = |result: fused_rnn::Result<()>| assert!(matches!(result, Err(Error::ZeroSize { .. })), "{result:?}");
    let all = || SoftmaxMask { keys: None, causal: None };
    let nt = MatMul::single(Orientation::Nt, 2, 2, 3);
    is_shape(device.matmul(nt, 1.0, a.get(), a.get(), out.get_mut(), set, space.get_mut()));
    is_shape(device.copy(a.get(), out.get_mut()));
    is_shape(device.multiply(a.get(), a.get(), out.get_mut()));
    is_shape(device.adagrad(AdagradStep { rate: 0.1, epsilon: 0.0 }, out.get_mut(), a.get(), space.get_mut()));
    is_shape(device.sgd(SgdStep { rate: 0.1, momentum: 0.0, nesterov: false }, out.get_mut(), a.get(), None));
    let (entry, mse) = (LossEntry { weight: 1.0, code: 1 }, Loss::MeanSquaredError);
    let mut short = device.allocate_as("short", DType::F64, 2).unwrap();
    is_shape(device.loss(mse, 1, a.get(), a.get(), None, None, entry, short.view_mut(), space.get_mut()));
    is_shape(device.loss(mse, 4, a.get(), a.get(), None, None, entry, status.get_mut(), space.get_mut()));
    is_shape(device.check_finite(a.get(), 1, short.view_mut()));
    is_shape(a.get().part(2..7).map(drop));
    is_shape(other.get_mut().part(2..7).map(drop));
    is_shape(other.get_mut().split_at(7).map(drop));
    is_shape(device.upload(&[0.0f64; 7], short.view_mut()));
    is_shape(device.download(short.view(), &mut [0.0f64; 1]));
    let third = Strides { offset: 2, strides: [0, 0, 3, 1] };
    is_shape(device.strided_copy([1, 1, 2, 2], a.get(), third, out.get_mut(), third, set));
    is_shape(device.scale_add(1.0, a.get(), 1.0, out.get_mut()));
    is_shape(device.sum_axis([2, 3, 1], 1.0, a.get(), out.get_mut(), set, space.get_mut()));
    is_shape(device.sum_axis([5, 3, 1], 1.0, a.get(), out.get_mut(), set, space.get_mut()));
    let huge = device.sum_axis([usize::MAX, 2, 1], 1.0, a.get(), out.get_mut(), set, space.get_mut());
    assert!(matches!(huge, Err(Error::SizeOverflow { .. })), "{huge:?}");
    is_shape(device.max_axis([6, 1, 1], a.get(), None, other.get_mut(), five.get_mut()));
    is_shape(device.max_axis([6, 1, 1], a.get(), Some(out.get()), other.get_mut(), six().get_mut()));
    is_shape(device.max_axis_gradient([6, 1, 1], a.get(), five.get(), other.get_mut()));
    is_shape(device.max_axis_gradient([6, 1, 1], a.get(), lists.get(), out.get_mut()));
    is_shape(device.scale_rows(tensor(4).get(), false, a.get(), other.get_mut()));
    is_shape(device.scale_rows(tensor(0).get(), false, a.get(), other.get_mut()));
    is_shape(device.scale_rows(tensor(2).get(), false, a.get(), out.get_mut()));
    is_shape(device.select_rows(tensor(4).get(), a.get(), None, other.get_mut()));
    is_shape(device.select_rows(tensor(2).get(), a.get(), Some(out.get()), other.get_mut()));
    is_shape(device.select_rows(tensor(2).get(), a.get(), None, out.get_mut()));
    is_shape(device.softmax(4, a.get(), all(), other.get_mut()));
    is_shape(device.softmax(3, a.get(), all(), out.get_mut()));
    is_zero(device.softmax(0, a.get(), all(), other.get_mut()));
    is_zero(device.softmax(3, a.get(), SoftmaxMask { keys: None, causal: Some(0) }, other.get_mut()));
    for (len, by) in [(6, 0), (6, 2), (3, 1), (2, 4)] {
        let keys = tensor(len);
        is_shape(device.softmax(
            3,
            a.get(),
            SoftmaxMask { keys: Some((keys.get(), by)), causal: None },
            other.get_mut(),
        ));
    }
    is_shape(device.softmax_gradient(3, a.get(), out.get(), other.get_mut()));
    let product = MatMul::single(Orientation::Nn, 1, 3, 2);
    is_shape(device.matmul(
        MatMul { count: 3, ..product },
        1.0,
        a.get(),
        a.get(),
        other.get_mut(),
        set,
        space.get_mut(),
    ));
    is_shape(device.matmul(
        MatMul { count: 2, ..product },
        1.0,
        tensor(4).get(),
        tensor(12).get(),
        out.get_mut(),
        set,
        space.get_mut(),
    ));
    is_shape(device.layer_norm(3, 0.1, a.get(), Some(out.get()), None, other.get_mut(), tensor(4).get_mut()));
    is_shape(device.layer_norm(3, 0.1, a.get(), None, None, out.get_mut(), tensor(4).get_mut()));
    is_shape(device.layer_norm(3, 0.1, a.get(), None, None, other.get_mut(), tensor(5).get_mut()));
    let s = tensor(4);
    is_shape(device.layer_norm_gradient(3, a.get(), None, s.get(), out.get(), None, None, None, set, space.get_mut()));
    let dgamma = Some(out.get_mut());
    is_shape(device.layer_norm_gradient(3, a.get(), None, s.get(), a.get(), None, dgamma, None, set, space.get_mut()));
    let (mut mean, three) = (tensor(3), tensor(3));
    is_shape(device.column_moments(3, a.get(), Some(three.get()), mean.get_mut(), tensor(3).get_mut()));
    is_shape(device.column_moments(3, a.get(), None, mean.get_mut(), out.get_mut()));
    let (m, v) = (mean.get(), three.get());
    is_shape(device.batch_norm(3, 0.1, a.get(), m, v, None, Some(s.get()), other.get_mut()));
    let dx = Some(out.get_mut());
    is_shape(device.batch_norm_gradient(
        3,
        0.1,
        a.get(),
        None,
        m,
        v,
        None,
        a.get(),
        dx,
        None,
        None,
        set,
        space.get_mut(),
    ));
    is_shape(device.mask_not_equal(3, a.get(), 0.0, out.get_mut()));
    is_zero(device.mask_not_equal(0, a.get(), 0.0, out.get_mut()));
    let (mut r, mut i, mut h, mut l, mut any) = (six(), six(), six(), Rows::new(device, &[9; 3]), tensor(2));
    let order = MaskOrder {
        rows: r.get_mut(),
        inverse: i.get_mut(),
        hold: h.get_mut(),
        lengths: l.get_mut(),
        any: any.get_mut(),
    };
    is_shape(device.mask_order(3, false, a.get(), order));
    is_shape(device.gather(2, a.get(), lists.get(), out.get_mut(), None));
    is_shape(device.hold_gradient(3, 1, lists.get(), a.get(), out.get_mut()));
    is_shape(device.hold_gradient(4, 1, lists.get(), a.get(), other.get_mut()));
    is_shape(device.indices(3, a.get(), five.get_mut(), status.of_indices(1)));
    assert_eq!(out.values(), vec![1.0; 5], "nothing was written");
    assert_eq!((other.values(), mean.values()), (vec![1.0; 6], vec![1.0; 3]), "nothing was written");
    assert_eq!((five.values(), l.values()), (vec![9; 5], vec![9; 3]), "nothing was written");
}

/// A GPU needs a workspace for the sums of rows, and says how much.
pub fn too_little_workspace(device: &Device) {
    let call = Workspace::Normalization { rows: 2, columns: 3 };
    let needed = device.workspace(call);
    let (x, statistics, mut dbeta) =
        (Tensor::new(device, &[1.0; 6]), Tensor::new(device, &[1.0; 4]), Tensor::poisoned(device, 3));
    let mut space = Tensor::poisoned(device, needed.saturating_sub(1));
    let (out, space, set) = (Some(dbeta.get_mut()), space.get_mut(), WeightGrad::Set);
    let result = device.layer_norm_gradient(3, x.get(), None, statistics.get(), x.get(), None, None, out, set, space);
    assert_eq!(needed == 0, device.is_host());
    assert_eq!(matches!(&result, Err(Error::Shape { tensor, .. }) if tensor == "workspace"), needed > 0, "{result:?}");
    assert!(needed > 0 || unit(device) > 0.0 && dbeta.values() == [2.0; 3]);
}

/// Gives an operation its tensors: all as they should be, or one of them not.
struct Giver<'d> {
    device: &'d Device,
    /// Another device, whose memory this one cannot read.
    other: Option<&'d Device>,
    /// Which tensor is wrong, and whether by its place instead of its type.
    wrong: Option<(usize, bool)>,
    given: usize,
}

impl Giver<'_> {
    fn give(&mut self, dtype: DType, len: usize) -> tensor::Tensor {
        let mut dtype = dtype;
        let mut device = self.device;
        if let Some((_, by_place)) = self.wrong.filter(|(at, _)| *at == self.given) {
            if by_place {
                device = self.other.expect("another device");
            } else {
                dtype = if dtype == DType::U32 { DType::F32 } else { DType::U32 };
            }
        }
        self.given += 1;
        device.allocate_as("tensor", dtype, len).unwrap()
    }

    fn element(&mut self, len: usize) -> tensor::Tensor {
        self.give(self.device.dtype(), len)
    }

    fn index(&mut self, len: usize) -> tensor::Tensor {
        self.give(DType::U32, len)
    }

    fn double(&mut self, len: usize) -> tensor::Tensor {
        self.give(DType::F64, len)
    }
}

/// An operation with tensors of the right lengths.
type Call = fn(&Device, &mut Giver<'_>) -> Result<()>;

/// Every operation, with every optional tensor.
const CALLS: &[(&str, Call)] = &[
    ("matmul", |d, g| {
        let product = MatMul { count: 2, orientation: Orientation::Nt, m: 2, n: 3, k: 5 };
        let (a, b, mut c) = (g.element(20), g.element(30), g.element(12));
        let mut space = g.element(d.workspace(Workspace::MatMul(product)).max(1));
        d.matmul(product, 0.5, a.view(), b.view(), c.view_mut(), WeightGrad::Add, space.view_mut())
    }),
    ("sum_axis", |d, g| {
        let (x, mut y) = (g.element(30), g.element(10));
        let mut space = g.element(d.workspace(Workspace::SumAxis([2, 3, 5])).max(1));
        d.sum_axis([2, 3, 5], 1.0, x.view(), y.view_mut(), WeightGrad::Set, space.view_mut())
    }),
    ("copy", |d, g| {
        let (x, mut y) = (g.element(7), g.element(7));
        d.copy(x.view(), y.view_mut())
    }),
    ("fill", |d, g| d.fill(g.element(7).view_mut(), 1.0)),
    ("scale_add", |d, g| {
        let (x, mut y) = (g.element(7), g.element(7));
        d.scale_add(2.0, x.view(), 1.0, y.view_mut())
    }),
    ("scale", |d, g| d.scale(2.0, g.element(7).view_mut())),
    ("strided_copy", |d, g| {
        let (x, mut y) = (g.element(6), g.element(6));
        let layout = Strides { offset: 0, strides: [0, 0, 3, 1] };
        d.strided_copy([1, 1, 2, 3], x.view(), layout, y.view_mut(), layout, WeightGrad::Set)
    }),
    ("multiply", |d, g| {
        let (a, b, mut out) = (g.element(7), g.element(7), g.element(7));
        d.multiply(a.view(), b.view(), out.view_mut())
    }),
    ("add_bias_activate", |d, g| {
        let (bias, mut values, mut inputs) = (g.element(3), g.element(6), g.element(6));
        d.add_bias_activate(Activation::Tanh, Some(bias.view()), values.view_mut(), Some(inputs.view_mut()))
    }),
    ("activation_gradient", |d, g| {
        let (dy, values, mut dx) = (g.element(7), g.element(7), g.element(7));
        d.activation_gradient(Activation::Tanh, dy.view(), values.view(), dx.view_mut())
    }),
    ("gather", |d, g| {
        let (table, rows, mut out, mut status) = (g.element(6), g.index(4), g.element(8), g.double(STATUS_LEN));
        let status = Some(IndexStatus { code: 1, status: status.view_mut() });
        d.gather(2, table.view(), rows.view(), out.view_mut(), status)
    }),
    ("scatter_add", |d, g| {
        let (rows, dout, mut dtable, mut status) = (g.index(4), g.element(8), g.element(6), g.double(STATUS_LEN));
        let status = Some(IndexStatus { code: 1, status: status.view_mut() });
        d.scatter_add(2, rows.view(), dout.view(), dtable.view_mut(), WeightGrad::Set, status)
    }),
    ("max_axis", |d, g| {
        let (x, mask, mut y, mut position) = (g.element(30), g.element(6), g.element(10), g.index(10));
        d.max_axis([2, 3, 5], x.view(), Some(mask.view()), y.view_mut(), position.view_mut())
    }),
    ("max_axis_gradient", |d, g| {
        let (dy, position, mut dx) = (g.element(10), g.index(10), g.element(30));
        d.max_axis_gradient([2, 3, 5], dy.view(), position.view(), dx.view_mut())
    }),
    ("scale_rows", |d, g| {
        let (factors, x, mut y) = (g.element(2), g.element(6), g.element(6));
        d.scale_rows(factors.view(), false, x.view(), y.view_mut())
    }),
    ("select_rows", |d, g| {
        let (mask, a, b, mut out) = (g.element(2), g.element(6), g.element(6), g.element(6));
        d.select_rows(mask.view(), a.view(), Some(b.view()), out.view_mut())
    }),
    ("softmax", |d, g| {
        let (x, keys, mut y) = (g.element(6), g.element(3), g.element(6));
        let valid = SoftmaxMask { keys: Some((keys.view(), 2)), causal: Some(2) };
        d.softmax(3, x.view(), valid, y.view_mut())
    }),
    ("softmax_gradient", |d, g| {
        let (y, dy, mut dx) = (g.element(6), g.element(6), g.element(6));
        d.softmax_gradient(3, y.view(), dy.view(), dx.view_mut())
    }),
    ("layer_norm", |d, g| {
        let (x, gamma, beta) = (g.element(6), g.element(3), g.element(3));
        let (mut y, mut statistics) = (g.element(6), g.element(4));
        let (gamma, beta) = (Some(gamma.view()), Some(beta.view()));
        d.layer_norm(3, 0.1, x.view(), gamma, beta, y.view_mut(), statistics.view_mut())
    }),
    ("layer_norm_gradient", |d, g| {
        let (x, gamma, statistics, dy) = (g.element(6), g.element(3), g.element(4), g.element(6));
        let (mut dx, mut dgamma, mut dbeta) = (g.element(6), g.element(3), g.element(3));
        let mut space = g.element(d.workspace(Workspace::Normalization { rows: 2, columns: 3 }).max(1));
        d.layer_norm_gradient(
            3,
            x.view(),
            Some(gamma.view()),
            statistics.view(),
            dy.view(),
            Some(dx.view_mut()),
            Some(dgamma.view_mut()),
            Some(dbeta.view_mut()),
            WeightGrad::Set,
            space.view_mut(),
        )
    }),
    ("column_moments", |d, g| {
        let (x, weights, mut mean, mut variance) = (g.element(6), g.element(2), g.element(3), g.element(3));
        d.column_moments(3, x.view(), Some(weights.view()), mean.view_mut(), variance.view_mut())
    }),
    ("batch_norm", |d, g| {
        let (x, mean, variance) = (g.element(6), g.element(3), g.element(3));
        let (gamma, beta, mut y) = (g.element(3), g.element(3), g.element(6));
        let (gamma, beta) = (Some(gamma.view()), Some(beta.view()));
        d.batch_norm(3, 0.1, x.view(), mean.view(), variance.view(), gamma, beta, y.view_mut())
    }),
    ("batch_norm_gradient", |d, g| {
        let (x, weights, mean, variance) = (g.element(6), g.element(2), g.element(3), g.element(3));
        let (gamma, dy) = (g.element(3), g.element(6));
        let (mut dx, mut dgamma, mut dbeta) = (g.element(6), g.element(3), g.element(3));
        let mut space = g.element(d.workspace(Workspace::Normalization { rows: 2, columns: 3 }).max(1));
        d.batch_norm_gradient(
            3,
            0.1,
            x.view(),
            Some(weights.view()),
            mean.view(),
            variance.view(),
            Some(gamma.view()),
            dy.view(),
            Some(dx.view_mut()),
            Some(dgamma.view_mut()),
            Some(dbeta.view_mut()),
            WeightGrad::Set,
            space.view_mut(),
        )
    }),
    ("mask_not_equal", |d, g| {
        let (x, mut mask) = (g.element(6), g.element(2));
        d.mask_not_equal(3, x.view(), 0.0, mask.view_mut())
    }),
    ("mask_order", |d, g| {
        let (mask, mut rows, mut inverse, mut hold) = (g.element(6), g.index(6), g.index(6), g.index(6));
        let (mut lengths, mut any) = (g.index(2), g.element(2));
        let order = MaskOrder {
            rows: rows.view_mut(),
            inverse: inverse.view_mut(),
            hold: hold.view_mut(),
            lengths: lengths.view_mut(),
            any: any.view_mut(),
        };
        d.mask_order(3, false, mask.view(), order)
    }),
    ("hold_gradient", |d, g| {
        let (hold, dy, mut dx) = (g.index(6), g.element(12), g.element(12));
        d.hold_gradient(3, 2, hold.view(), dy.view(), dx.view_mut())
    }),
    ("indices", |d, g| {
        let (x, mut out, mut status) = (g.element(6), g.index(6), g.double(STATUS_LEN));
        d.indices(3, x.view(), out.view_mut(), Some(IndexStatus { code: 1, status: status.view_mut() }))
    }),
    ("dropout", |d, g| {
        let (x, mut y) = (g.element(12), g.element(12));
        d.dropout(&Dropout::new(0.5, 1), 0, 2, 3, x.view(), y.view_mut())
    }),
    ("loss", |d, g| {
        let (targets, predictions, weights, mut gradient) = (g.element(6), g.element(6), g.element(2), g.element(6));
        let (mut status, mut space) = (g.double(STATUS_LEN), g.element(d.workspace(Workspace::Loss).max(1)));
        d.loss(
            Loss::MeanSquaredError,
            3,
            targets.view(),
            predictions.view(),
            Some(weights.view()),
            Some(gradient.view_mut()),
            LossEntry { weight: 1.0, code: 1 },
            status.view_mut(),
            space.view_mut(),
        )
    }),
    ("adam", |d, g| {
        let step = AdamStep { rate: 0.1, beta_1: 0.9, beta_2: 0.9, epsilon: 0.1, decay: 0.0 };
        let (mut w, dw, mut m, mut v) = (g.element(7), g.element(7), g.element(7), g.element(7));
        d.adam(step, w.view_mut(), dw.view(), m.view_mut(), v.view_mut())
    }),
    ("sgd", |d, g| {
        let step = SgdStep { rate: 0.1, momentum: 0.9, nesterov: true };
        let (mut w, dw, mut velocity) = (g.element(7), g.element(7), g.element(7));
        d.sgd(step, w.view_mut(), dw.view(), Some(velocity.view_mut()))
    }),
    ("rmsprop", |d, g| {
        let step = RmsPropStep { rate: 0.1, rho: 0.9, momentum: 0.9, epsilon: 0.1 };
        let (mut w, dw) = (g.element(7), g.element(7));
        let (mut square, mut mean, mut velocity) = (g.element(7), g.element(7), g.element(7));
        let (mean, velocity) = (Some(mean.view_mut()), Some(velocity.view_mut()));
        d.rmsprop(step, w.view_mut(), dw.view(), square.view_mut(), mean, velocity)
    }),
    ("adagrad", |d, g| {
        let (mut w, dw, mut sums) = (g.element(7), g.element(7), g.element(7));
        d.adagrad(AdagradStep { rate: 0.1, epsilon: 0.1 }, w.view_mut(), dw.view(), sums.view_mut())
    }),
    ("sum_of_squares", |d, g| {
        let (x, mut sum, mut space) =
            (g.element(7), g.double(1), g.element(d.workspace(Workspace::SumOfSquares).max(1)));
        d.sum_of_squares(x.view(), sum.view_mut(), space.view_mut())
    }),
    ("clip_by_norm", |d, g| {
        let (sum, mut x) = (g.double(1), g.element(7));
        d.clip_by_norm(1.0, sum.view(), x.view_mut())
    }),
    ("clip_by_value", |d, g| d.clip_by_value(1.0, g.element(7).view_mut())),
    ("check_finite", |d, g| {
        let (x, mut status) = (g.element(7), g.double(STATUS_LEN));
        d.check_finite(x.view(), 1, status.view_mut())
    }),
];

/// A tensor of another element type or of another device's memory is refused, whichever of a call's it is. A workspace that a
/// device needs nothing of is nobody's business.
pub fn wrong_tensors(device: &Device) {
    let host = Device::cpu();
    #[cfg(feature = "emulated")]
    let emulated = Device::emulated().unwrap();
    #[cfg(feature = "emulated")]
    let other = Some(if device.is_host() { &emulated } else { &host });
    #[cfg(not(feature = "emulated"))]
    let other = (!device.is_host()).then_some(&host);
    for (name, call) in CALLS {
        let run = |wrong| {
            let mut giver = Giver { device, other, wrong, given: 0 };
            (call(device, &mut giver), giver.given)
        };
        let (result, tensors) = run(None);
        result.unwrap_or_else(|error| panic!("{name}: {error}"));
        let needs_workspace = match *name {
            "matmul" => device.workspace(Workspace::MatMul(MatMul::single(Orientation::Nt, 2, 3, 5))) > 0,
            "sum_axis" => device.workspace(Workspace::SumAxis([2, 3, 5])) > 0,
            "layer_norm_gradient" | "batch_norm_gradient" => {
                device.workspace(Workspace::Normalization { rows: 2, columns: 3 }) > 0
            }
            "loss" => device.workspace(Workspace::Loss) > 0,
            "sum_of_squares" => device.workspace(Workspace::SumOfSquares) > 0,
            _ => true,
        };
        // A workspace is the last of a call's tensors.
        for at in 0..tensors - usize::from(!needs_workspace) {
            let (result, _) = run(Some((at, false)));
            assert!(matches!(result, Err(Error::Shape { .. })), "{name}, tensor {at} of another type: {result:?}");
            if other.is_some() {
                let (result, _) = run(Some((at, true)));
                let refused = matches!(result, Err(Error::Unsupported { .. }));
                assert!(refused, "{name}, tensor {at} of another device: {result:?}");
            }
        }
    }
}
