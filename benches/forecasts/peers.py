"""What the program is compared with: seasonal naive, ETS of statsmodels and ridge regression on lags, from the same origins.

    python peers.py OUT    # OUT has the CSV files of data.py; writes OUT/peers.json

All are fitted anew at every origin, to all values before it. ETS is the best by AIC of three models: additive errors, damped additive
trend and additive season; the same without a trend; and, where all values are above zero, multiplicative errors and season. It sees at
most the last 1,000 values, or ten seasons, so that hourly series take seconds. Ridge is scikit-learn's `RidgeCV` on standardized lags, as
many as a window of the program has, with one output for each step ahead.
"""

import json
import multiprocessing
import pathlib
import sys
import warnings

import numpy as np
import pandas as pd

from data import SERIES

ORIGINS = 10


def origins(count, season):
    """The first value of each forecast: ten, the last a season before the end, no more than a fifth of the series before it."""
    step = max(1, min(season + 1, (count // 5 - season) // (ORIGINS - 1)))
    return [count - season - step * back for back in reversed(range(ORIGINS))]


def values_of(path):
    return pd.read_csv(path).iloc[:, -1].to_numpy(dtype=float)


def seasonal_naive(past, season):
    return past[-season:]


def ets(past, season):
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel

    past = past[-max(1000, 10 * season) :]
    models = [("add", "add", True, "add"), ("add", None, False, "add")]
    if past.min() > 0:
        models.append(("mul", "add", True, "mul"))
    best, forecast = np.inf, seasonal_naive(past, season)
    for error, trend, damped, seasonal in models:
        initial = "estimated" if season <= 12 else "heuristic"
        model = ETSModel(
            past, error=error, trend=trend, damped_trend=damped, seasonal=seasonal, seasonal_periods=season,
            initialization_method=initial,
        )
        try:
            fitted = model.fit(disp=False, maxiter=200)
            ahead = np.asarray(fitted.forecast(season))
        except (ValueError, np.linalg.LinAlgError):
            continue
        if np.isfinite(ahead).all() and fitted.aic < best:
            best, forecast = fitted.aic, ahead
    return forecast


def ridge(past, season):
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    lags = min(max(36, season), len(past) // 3)
    rows = range(lags, len(past) - season + 1)
    x = np.array([past[row - lags : row] for row in rows])
    y = np.array([past[row : row + season] for row in rows])
    model = make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(-3, 3, 13)))
    return model.fit(x, y).predict(past[None, -lags:])[0]


def of_series(job):
    path, season = job
    warnings.simplefilter("ignore")
    values = values_of(path)
    result = {"values": len(values), "origins": origins(len(values), season)}
    for name, method in [("seasonal naive", seasonal_naive), ("ETS", ets), ("ridge", ridge)]:
        result[name] = [method(values[:origin], season).tolist() for origin in result["origins"]]
    return result


def main(out):
    out = pathlib.Path(out)
    jobs = [(out / f"{name}.csv", season) for name, (season, _, _) in SERIES.items()]
    with multiprocessing.Pool(2) as pool:
        results = pool.map(of_series, jobs, chunksize=1)
    (out / "peers.json").write_text(json.dumps(dict(zip(SERIES, results))))


if __name__ == "__main__":
    main(*sys.argv[1:])
