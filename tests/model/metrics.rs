//! Metrics against scikit-learn's answers (`fixtures/generate_sklearn.py`), and batches against the whole.

use crate::common::Rng;
use fused_rnn::metrics::{
    self, Average, ClassScores, ConfusionMatrix, Curve, Metric, MetricAccumulator, ZeroDivision, argmax_rows,
};
use fused_rnn::nn::Loss;
use ndarray::{Array2, ArrayView1, ArrayView2};
use serde_json::Value;

fn fixtures() -> Value {
    serde_json::from_str(include_str!("../fixtures/sklearn.json")).unwrap()
}

/// A number; null is NaN.
fn number(value: &Value) -> f64 {
    if value.is_null() { f64::NAN } else { value.as_f64().unwrap() }
}

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(numbers).collect(),
        _ => vec![number(value)],
    }
}

fn classes(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect()
}

fn list(value: &Value) -> &[Value] {
    let list = value.as_array().unwrap();
    assert!(!list.is_empty());
    list
}

/// Sums of `terms` terms of one sign, their products and quotients, each rounded: a few roundings a term, here and there.
fn close(got: f64, expected: f64, terms: usize, what: &str) {
    let tolerance = 4.0 * (terms as f64 + 4.0) * f64::EPSILON * expected.abs();
    assert!(
        (got - expected).abs() <= tolerance || (got.is_nan() && expected.is_nan()),
        "{what}: {got}, not {expected}"
    );
}

fn three(scores: ClassScores) -> [f64; 3] {
    [scores.precision, scores.recall, scores.f1]
}

#[test]
fn confusion_matrices_scores_and_reports() {
    let fixtures = fixtures();
    for case in list(&fixtures["classification"]["cases"]) {
        let (truth, prediction) = (classes(&case["truth"]), classes(&case["prediction"]));
        let (count, samples) = (case["classes"].as_u64().unwrap() as usize, truth.len());
        let weights = numbers(&case["weights"]);
        for (key, matrix) in [
            ("plain", ConfusionMatrix::new(&truth, &prediction, count)),
            ("weighted", ConfusionMatrix::weighted(&truth, &prediction, count, &weights)),
        ] {
            let (matrix, answers) = (matrix.unwrap(), &case[key]);
            assert_eq!(matrix.counts().iter().copied().collect::<Vec<_>>(), numbers(&answers["matrix"]));
            close(matrix.accuracy(), number(&answers["accuracy"]), samples, key);
            if key == "plain" {
                assert_eq!(metrics::accuracy(&truth, &prediction).unwrap(), matrix.accuracy());
            }
            for (zero, answers) in [ZeroDivision::Zero, ZeroDivision::One, ZeroDivision::NotANumber]
                .into_iter()
                .zip(list(&answers["zero_division"]))
            {
                let what = format!("{count} classes, {key}, {zero:?}");
                let expected = [0, 1, 2, 3].map(|score| numbers(&answers["classes"][score]));
                for (class, scores) in matrix.scores(zero).into_iter().enumerate() {
                    for (score, got) in three(scores).into_iter().enumerate() {
                        close(got, expected[score][class], samples, &format!("{what}, class {class}, score {score}"));
                    }
                    assert_eq!(scores.support, expected[3][class], "{what}");
                }
                for (name, average) in
                    [("macro", Average::Macro), ("micro", Average::Micro), ("weighted", Average::Weighted)]
                {
                    let scores = matrix.average(average, zero);
                    for (got, expected) in three(scores).into_iter().zip(numbers(&answers[name])) {
                        close(got, expected, samples, &format!("{what}, {name}"));
                    }
                }
                assert_eq!(matrix.report(None, 2, zero).unwrap(), answers["report"].as_str().unwrap(), "{what}");
            }
        }
    }
}

#[test]
fn a_report_with_names() {
    let fixtures = fixtures();
    let case = &fixtures["classification"]["named"];
    let matrix = ConfusionMatrix::new(&classes(&case["truth"]), &classes(&case["prediction"]), 3).unwrap();
    let names: Vec<&str> = list(&case["names"]).iter().map(|name| name.as_str().unwrap()).collect();
    let report = matrix.report(Some(&names), 4, ZeroDivision::Zero).unwrap();
    assert_eq!(report, case["report"].as_str().unwrap());
}

/// The result after one batch, and after several of other sizes, which must be the same to the bit.
fn streamed(metric: Metric, targets: &[f64], predictions: &[f64], columns: usize, weights: Option<&[f64]>) -> f64 {
    let mut whole = MetricAccumulator::new(metric).unwrap();
    whole.update(targets, predictions, columns, weights).unwrap();
    let rows = predictions.len() / columns;
    let width = targets.len() / rows;
    for size in [1, 2, 7, rows] {
        let mut parts = MetricAccumulator::new(metric).unwrap();
        for start in (0..rows).step_by(size) {
            let end = (start + size).min(rows);
            let (targets, predictions) =
                (&targets[start * width..end * width], &predictions[start * columns..end * columns]);
            parts.update(targets, predictions, columns, weights.map(|weights| &weights[start..end])).unwrap();
            parts.update(&targets[..0], &[], columns, weights.map(|_| &[][..])).unwrap();
        }
        assert_eq!(parts.result().to_bits(), whole.result().to_bits(), "{metric} in batches of {size}");
    }
    whole.result()
}

#[test]
fn classes_from_predictions() {
    let fixtures = fixtures();
    let case = &fixtures["top_k"];
    let (truth, one_hot, prediction) =
        (classes(&case["truth"]), numbers(&case["one_hot"]), numbers(&case["prediction"]));
    let sparse: Vec<f64> = truth.iter().map(|class| *class as f64).collect();
    let view = ArrayView2::from_shape((40, 6), &prediction).unwrap();
    let one_hot_view = ArrayView2::from_shape((40, 6), &one_hot).unwrap();
    let expected = number(&case["accuracy"]);
    close(metrics::sparse_categorical_accuracy(&truth, view).unwrap(), expected, 40, "sparse");
    close(metrics::categorical_accuracy(one_hot_view, view).unwrap(), expected, 40, "categorical");
    close(metrics::accuracy(&truth, &argmax_rows(view).unwrap()).unwrap(), expected, 40, "argmax");
    close(streamed(Metric::CategoricalAccuracy, &one_hot, &prediction, 6, None), expected, 40, "streamed");
    close(streamed(Metric::SparseCategoricalAccuracy, &sparse, &prediction, 6, None), expected, 40, "streamed");
    for (k, expected) in (1..).zip(numbers(&case["top"])) {
        let what = format!("top {k}");
        close(metrics::sparse_top_k_categorical_accuracy(&truth, view, k).unwrap(), expected, 40, &what);
        close(metrics::top_k_categorical_accuracy(one_hot_view, view, k).unwrap(), expected, 40, &what);
        close(streamed(Metric::TopKCategoricalAccuracy { k }, &one_hot, &prediction, 6, None), expected, 40, &what);
        close(
            streamed(Metric::SparseTopKCategoricalAccuracy { k }, &sparse, &prediction, 6, None),
            expected,
            40,
            &what,
        );
    }
    for (name, average) in [("macro", Average::Macro), ("micro", Average::Micro), ("weighted", Average::Weighted)] {
        let (metric, expected) = (Metric::F1Score { average, threshold: None }, number(&case["f1"][name]));
        close(streamed(metric, &one_hot, &prediction, 6, None), expected, 40, name);
        close(streamed(metric, &sparse, &prediction, 6, None), expected, 40, name);
    }
}

#[test]
fn several_labels_of_a_row() {
    let fixtures = fixtures();
    let case = &fixtures["several_labels"];
    let (truth, prediction, weights) =
        (numbers(&case["truth"]), numbers(&case["prediction"]), numbers(&case["weights"]));
    let threshold = 0.5;
    let views = [&truth, &prediction].map(|values| ArrayView2::from_shape((25, 4), values).unwrap());
    let expected = number(&case["accuracy"]);
    close(metrics::binary_accuracy(views[0], views[1], threshold).unwrap(), expected, 100, "accuracy");
    close(streamed(Metric::BinaryAccuracy { threshold }, &truth, &prediction, 4, None), expected, 100, "accuracy");
    let streamed = |metric| streamed(metric, &truth, &prediction, 4, Some(&weights));
    close(streamed(Metric::Precision { threshold }), number(&case["precision"]), 100, "precision");
    close(streamed(Metric::Recall { threshold }), number(&case["recall"]), 100, "recall");
    for (name, average) in [("macro", Average::Macro), ("micro", Average::Micro), ("weighted", Average::Weighted)] {
        let metric = Metric::F1Score { average, threshold: Some(threshold) };
        close(streamed(metric), number(&case["f1"][name]), 100, name);
    }
}

#[test]
fn areas_under_the_curve() {
    let fixtures = fixtures();
    for case in list(&fixtures["auc"]) {
        let truth: Vec<bool> = classes(&case["truth"]).into_iter().map(|class| class == 1).collect();
        let scores = numbers(&case["scores"]);
        close(metrics::roc_auc(&truth, &scores).unwrap(), number(&case["auc"]), 60, "area");
        let opposite: Vec<bool> = truth.iter().map(|t| !t).collect();
        close(metrics::roc_auc(&opposite, &scores).unwrap(), 1.0 - number(&case["auc"]), 60, "the other class's");
    }
}

#[test]
fn errors_of_numbers() {
    let fixtures = fixtures();
    for case in list(&fixtures["regression"]["cases"]) {
        let rows = list(&case["truth"]).len();
        let (truth, prediction) = (numbers(&case["truth"]), numbers(&case["prediction"]));
        let weights = numbers(&case["weights"]);
        let columns = truth.len() / rows;
        let shape = (rows, columns);
        let (t, p) =
            (ArrayView2::from_shape(shape, &truth).unwrap(), ArrayView2::from_shape(shape, &prediction).unwrap());
        let plain = &case["plain"];
        let n = truth.len();
        close(metrics::mse(t, p).unwrap(), number(&plain["mse"]), n, "mse");
        close(metrics::mae(t, p).unwrap(), number(&plain["mae"]), n, "mae");
        close(metrics::mape(t, p).unwrap(), number(&plain["mape"]), n, "mape");
        // The mean is off by n roundings of itself, a distance from it by as much. That scales like the largest value, a hundred or so, over
        // the smallest spread, and twice for a square.
        let spread = t.columns().into_iter().map(|column| column.std(0.0)).fold(f64::INFINITY, f64::min);
        let largest = truth.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        let roundings = (n as f64 * 2.0 * largest / spread).ceil() as usize;
        let r2 = |got: f64, key: &str| {
            let expected = number(&case[key]["r2"]);
            // 1 - quotient: the quotient's error is relative to itself.
            close(1.0 - got, 1.0 - expected, roundings, key);
        };
        r2(metrics::r2(t, p).unwrap(), "plain");
        if columns == 1 {
            let flat = metrics::r2(ArrayView1::from(&truth[..]), ArrayView1::from(&prediction[..])).unwrap();
            assert_eq!(flat, metrics::r2(t, p).unwrap());
        }
        for (key, weights) in [("plain", None), ("weighted", Some(&weights[..]))] {
            let streamed = |metric| streamed(metric, &truth, &prediction, columns, weights);
            close(streamed(Metric::MeanSquaredError), number(&case[key]["mse"]), n, key);
            close(streamed(Metric::RootMeanSquaredError), number(&case[key]["rmse"]), n, key);
            close(streamed(Metric::MeanAbsoluteError), number(&case[key]["mae"]), n, key);
            close(streamed(Metric::MeanAbsolutePercentageError), 100.0 * number(&case[key]["mape"]), n, key);
            r2(streamed(Metric::R2Score), key);
        }
    }
    let constant = &fixtures["regression"]["constant"];
    let truth = Array2::from_elem((4, 1), 5.0);
    let mut wrong = truth.clone();
    wrong[[1, 0]] = 6.0;
    for (prediction, key) in [(&truth, "perfect"), (&wrong, "wrong")] {
        assert_eq!(metrics::r2(truth.view(), prediction.view()).unwrap(), number(&constant[key]));
        let [t, p] = [&truth, prediction].map(|values| values.as_slice().unwrap());
        assert_eq!(streamed(Metric::R2Score, t, p, 1, None), number(&constant[key]));
    }
}

/// Whatever the numbers, batches give what all at once gives, or an error, and a metric of fractions lies between 0 and 1.
#[test]
fn any_batches() {
    let half = 0.5;
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let (rows, columns) = (1 + rng.below(20), 2 + rng.below(4));
        let prediction: Vec<f64> = (0..rows * columns).map(|_| rng.uniform(-1.0, 2.0)).collect();
        let sparse: Vec<f64> = (0..rows).map(|_| rng.below(columns) as f64).collect();
        let dense: Vec<f64> = (0..rows * columns).map(|_| rng.below(2) as f64).collect();
        let weights: Vec<f64> = (0..rows).map(|_| rng.uniform(0.0, 3.0)).collect();
        let weights = if rng.chance(0.5) { Some(&weights[..]) } else { None };
        let k = 1 + rng.below(columns);
        for metric in [Metric::SparseCategoricalAccuracy, Metric::SparseTopKCategoricalAccuracy { k }] {
            let value = streamed(metric, &sparse, &prediction, columns, weights);
            assert!((0.0..=1.0 + 1e-12).contains(&value), "seed {seed}: {metric} {value}");
        }
        for metric in [
            Metric::BinaryAccuracy { threshold: half },
            Metric::CategoricalAccuracy,
            Metric::TopKCategoricalAccuracy { k },
            Metric::Precision { threshold: half },
            Metric::Recall { threshold: half },
            Metric::F1Score { average: Average::Weighted, threshold: Some(half) },
        ] {
            let value = streamed(metric, &dense, &prediction, columns, weights);
            assert!((0.0..=1.0 + 1e-12).contains(&value), "seed {seed}: {metric} {value}");
        }
        assert!(streamed(Metric::MeanSquaredError, &dense, &prediction, columns, weights) >= 0.0);
        assert!(streamed(Metric::R2Score, &dense, &prediction, columns, weights) <= 1.0 || rows < 2);
    }
}

/// What Keras 3 gives for these: thresholds as many as named, weights of samples, logits.
#[test]
fn areas_by_thresholds_are_kerass() {
    let truth = "1110000001111111111101100110111001010000";
    let t: Vec<f64> = truth.bytes().map(|b| f64::from(b - b'0')).collect();
    let p = [
        0.71, 1.0, 0.55, 0.36, 0.52, 0.28, 0.03, 0.0, 0.11, 0.82, 0.45, 0.69, 0.7, 0.91, 0.81, 0.86, 0.55, 0.71, 0.99,
        1.0, 0.0, 1.0, 1.0, 0.48, 0.33, 0.66, 1.0, 0.84, 1.0, 1.0, 0.86, 0.0, 0.25, 0.95, 0.0, 0.87, 0.38, 0.46, 0.0,
        0.05,
    ];
    let w = [
        0.81, 0.4, 0.18, 1.16, 0.6, 1.34, 0.4, 1.88, 0.73, 0.21, 1.26, 1.85, 0.88, 1.91, 1.0, 0.85, 1.24, 1.99, 1.9,
        0.92, 1.52, 0.99, 1.06, 1.57, 0.83, 1.47, 1.42, 1.86, 0.23, 1.46, 1.85, 1.94, 0.03, 1.73, 1.96, 1.91, 0.3,
        1.95, 1.78, 1.64,
    ];
    let auc = |curve, thresholds| Metric::Auc { curve, thresholds, from_logits: false };
    for (curve, thresholds, expected, weighted) in [
        (Curve::Roc, 200, 0.9667518734931946, 0.9569727182388306),
        (Curve::Roc, 11, 0.9654731750488281, 0.9546554684638977),
        (Curve::PrecisionRecall, 200, 0.9718522429466248, 0.9633333086967468),
        (Curve::PrecisionRecall, 11, 0.969476580619812, 0.9576622843742371),
    ] {
        for (weights, expected) in [(None, expected), (Some(&w[..]), weighted)] {
            let mut metric = MetricAccumulator::new(auc(curve, thresholds)).unwrap();
            assert!(metric.result().is_nan());
            // In two batches.
            metric.update(&t[..15], &p[..15], 1, weights.map(|w| &w[..15])).unwrap();
            metric.update(&t[15..], &p[15..], 1, weights.map(|w| &w[15..])).unwrap();
            assert!(
                (metric.result() - expected).abs() < 2e-6,
                "{curve:?} {thresholds}: {} {expected}",
                metric.result()
            );
        }
    }
    let logits: Vec<f64> = p.iter().map(|p| 8.0 * p - 4.0).collect();
    let of_logits = Metric::Auc { curve: Curve::Roc, thresholds: 200, from_logits: true };
    let mut metric = MetricAccumulator::new(of_logits).unwrap();
    metric.update(&t, &logits, 1, None).unwrap();
    assert!((metric.result() - 0.9667518734931946).abs() < 2e-6, "{}", metric.result());
    // Probabilities, targets and thresholds that cannot be.
    for (t, p) in [(1.0, 1.5), (1.0, f64::NAN), (0.5, 0.5)] {
        assert!(MetricAccumulator::new(auc(Curve::Roc, 200)).unwrap().update(&[t], &[p], 1, None).is_err());
    }
    for thresholds in [0, 1, usize::MAX] {
        assert!(MetricAccumulator::new(auc(Curve::Roc, thresholds)).is_err());
    }
}

/// What Keras 3 gives for its documentation's examples, without weights and with 0.3 and 0.7.
#[test]
fn losses_as_metrics_are_kerass() {
    let (t, p) = ([0.0, 1.0, 1.0, 1.0], [1.0, 0.0, 1.0, 1.0]);
    for (name, expected) in [
        ("cosine_similarity", [0.5, 0.699999988079071]),
        ("log_cosh", [0.21689040958881378, 0.13013425469398499]),
        ("poisson", [4.779523849487305, 3.267714500427246]),
        ("hinge", [0.75, 0.45000001788139343]),
        ("squared_hinge", [1.25, 0.75]),
        ("categorical_hinge", [1.0, 0.6000000238418579]),
        ("msle", [0.24022643268108368, 0.14413586258888245]),
    ] {
        for (weights, expected) in [None, Some(&[0.3, 0.7][..])].into_iter().zip(expected) {
            let mut metric = MetricAccumulator::new(name.parse().unwrap()).unwrap();
            metric.update(&t, &p, 2, weights).unwrap();
            assert!((metric.result() - expected).abs() < 1e-6 * expected, "{name}: {} {expected}", metric.result());
        }
    }
    let mut metric = MetricAccumulator::new("kl_divergence".parse().unwrap()).unwrap();
    metric.update(&[0.0, 1.0, 0.0, 0.0], &[0.6, 0.4, 0.4, 0.6], 2, None).unwrap();
    assert!((metric.result() - 0.458143025636673).abs() < 1e-6, "{}", metric.result());
    // Targets as the loss has them: several quantiles of one target a row.
    let quantiles = Metric::Loss(Loss::quantiles(&[0.1, 0.9]).unwrap());
    let mut metric = MetricAccumulator::new(quantiles).unwrap();
    metric.update(&[1.0, 2.0], &[1.0, 1.0, 2.0, 3.0], 2, None).unwrap();
    assert!((metric.result() - 0.1 / 4.0).abs() < 1e-12, "{}", metric.result());
    assert!(MetricAccumulator::new(Metric::Loss(Loss::Huber { delta: -1.0 })).is_err());
}
