//! Planted bugs: each entry of `list.rs` is put into a copy of the kernels, which are built for the host and run on
//! the emulated GPU. What the tests of the option space do not notice there, they would not notice in earnest.
//!
//! ```text
//! cargo test --features emulated --test operator -- --ignored --nocapture planted_bugs_are_caught
//! ```
//!
//! Prints caught or survived for each bug and the score; fails where a bug survives that the list does not excuse, where
//! an excused one is caught, or where the kernels fail without a bug. `FUSED_RNN_PLANTED_BUGS=text` plants only bugs whose file,
//! description or family contains the text; `CXX` names the compiler.

mod list;

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::backends::agrees_with_gates_near_one;
use crate::common::run::{self, Setup, same_bits};
use crate::common::tensors::emulated;
use crate::common::truth::settled;
use crate::common::{Number, Recipe};
use crate::operations;
use fused_rnn::backend::cuda::compile::{Sources, Unit};
use fused_rnn::backend::cuda::emulated::{Emulated, EmulatedStream, Schedule};
use fused_rnn::backend::cuda::{CudaBackend, CudaOptions, Family, FamilyChoice, Staged, catalog};
use fused_rnn::cell::{Activation, Activations, CellKind};
use fused_rnn::rnn::GruReset;
use fused_rnn::{DType, Device};
use list::{PLANTED_BUGS, Place, PlantedBug, WIDE};

/// Files of the kernels that the suite of the operations runs.
const OPERATIONS: [&str; 11] = [
    "elementwise.cu",
    "rows.cu",
    "norm.cu",
    "training.cu",
    "gemm.cu",
    "gemm_pipelined.cu",
    "gemm_exact.cu",
    "gemm_few_rows.cu",
    "gemm_sum.cu",
    "reduce.cu",
    "dropout.cu",
];

/// How long the search for a bug may take before it counts as one that keeps the kernels from ending.
const TIME_LIMIT: Duration = Duration::from_secs(300);

fn kernels() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels")
}

// ---- looking for a bug ------------------------------------------------------------------------------------------------

/// Every schedule that is tried: the natural order, a random one, and random ones in which someone lags.
const SCHEDULES: [(u64, bool); 4] = [(0, false), (1, false), (2, true), (3, true)];

/// Small problems with every option among them, and some around the edges of tiles.
fn recipes(count: u64) -> Vec<Recipe> {
    let mut all: Vec<Recipe> = (0..count).map(Recipe::random).collect();
    // Short first: most bugs show in any of them.
    all.sort_by_key(|recipe| {
        let d = &recipe.descriptor;
        recipe.shape.seq_len * recipe.shape.batch * d.hidden_size * (d.hidden_size + d.input_size)
    });
    all
}

/// The same without options that the persistent kernels leave to the step family.
fn usual(mut recipe: Recipe) -> Recipe {
    let d = &mut recipe.descriptor;
    if d.activations.state != Activation::Relu || d.cell != CellKind::Rnn {
        d.activations = Activations::default();
    }
    d.reverse_activations = None;
    (d.gate_clip, d.cell_clip, d.proj_size) = (None, None, None);
    (d.peepholes, d.coupled_input_forget, d.reset, d.heads) = (false, false, GruReset::After, 1);
    recipe
}

/// The suite of the operations.
fn look_at_operations<E: Number>() -> Result<(), String>
where
    Device: From<CudaBackend<E, Emulated>>,
{
    for (seed, starve) in SCHEDULES {
        for (name, test) in operations::ALL {
            // The suite panics, with what is wrong.
            catch_unwind(AssertUnwindSafe(|| test(&emulated::<E>(seed, starve))))
                .map_err(|what| format!("{name}: {}", panicked(what)))?;
        }
    }
    Ok(())
}

/// The same with batches for tiles of 16 sequences.
fn many_sequences(mut recipe: Recipe, index: usize) -> Recipe {
    recipe.shape.batch = [9, 16, 17, 33, 15, 31][index % 6];
    recipe.descriptor.activations = Activations::default();
    recipe
}

/// Blocks of the grid family that the GPU holds: one group or two for a direction, so that groups have more than 8 sequences.
fn few_blocks(recipe: &Recipe, index: usize) -> u32 {
    let d = &recipe.descriptor;
    let units = catalog::persistent().iter().find(|kernel| kernel.tile > 8).map_or(16, |kernel| kernel.units);
    let groups = if recipe.shape.batch > 16 && index % 4 < 2 { 2 } else { 1 };
    (d.hidden_size.next_multiple_of(32) * d.num_directions()) as u32 / units * groups
}

fn look<E: Number>(family: &str) -> Result<(), String>
where
    Device: From<CudaBackend<E, Emulated>>,
{
    if family == "operations" {
        return look_at_operations::<E>();
    }
    // Where every option is there: enough for each cell to meet each of its own.
    let count = if family == "step" && E::DTYPE == DType::F32 { 160 } else { 70 };
    for (index, recipe) in recipes(count).into_iter().enumerate() {
        let (seed, starve) = SCHEDULES[index % SCHEDULES.len()];
        // Each problem has seeds of its own, so that a race gets many chances.
        let schedule = Schedule { seed: if seed == 0 { 0 } else { seed + 4 * index as u64 }, starve };
        let recipe = match family {
            "step" => recipe,
            WIDE => many_sequences(usual(recipe), index),
            _ => usual(recipe),
        };
        let recipe = recipe.judged_in(E::DTYPE);
        let device = Emulated::new(schedule).map_err(|e| e.to_string())?;
        let device = if family == WIDE { device.with_resident_limit(few_blocks(&recipe, index)) } else { device };
        look_at::<E>(&recipe, &options(family), device)
            .map_err(|what| format!("{what} of {recipe:?} under {schedule:?}"))?;
    }
    if E::DTYPE.size() == 2 {
        // Random weights make no such gates.
        let device = Emulated::new(Schedule::default()).map_err(|e| e.to_string())?;
        let backend = Staged::new(CudaBackend::<E, _>::with_options(device.into(), EmulatedStream, options(family)));
        catch_unwind(AssertUnwindSafe(|| agrees_with_gates_near_one(&backend))).map_err(panicked)?;
    }
    Ok(())
}

/// What a panic says.
fn panicked(what: Box<dyn std::any::Any + Send>) -> String {
    what.downcast_ref::<String>().map_or_else(|| "a panic".to_owned(), |text| text.replace('\n', " "))
}

fn look_at<E: Number>(recipe: &Recipe, options: &CudaOptions, device: Emulated) -> Result<(), String> {
    let backend = Staged::new(CudaBackend::<E, _>::with_options(device.into(), EmulatedStream, options.clone()));
    let (problem, truth) = &*settled(recipe);
    let (d, shape, inputs, gradients) =
        (&problem.descriptor, problem.shape, problem.inputs::<E>(), problem.output_gradients::<E>());
    let train =
        |setup: &Setup<E>| run::train(&backend, d, shape, &inputs, &gradients, setup).map_err(|e| e.to_string());
    let results = train(&Setup::default())?;
    truth.judge_all(&results)?;
    same_bits("again", &results, &train(&Setup { extra: 3, ..Setup::default() })?)?;
    let weights = fused_rnn::rnn::WeightLayout::new(d).map_err(|e| e.to_string())?.len();
    let half = E::of(0.5);
    let added = train(&Setup { add_to: Some(vec![half; weights]), ..Setup::default() })?;
    for (name, got) in added.iter().filter(|(name, _)| name.starts_with("dweight") || name.starts_with("dbias")) {
        let sum: Vec<f64> = truth.values(name).iter().map(|value| value + 0.5).collect();
        // The sum is rounded once more, at the size of the sum.
        let allowed = truth.tolerance::<E>(name) + E::DTYPE.epsilon() * (truth.magnitude(name) + 0.5);
        let off = |(got, sum): (&E, &f64)| (got.wide() - sum).abs() > allowed || got.is_nan();
        if let Some(i) = got.iter().zip(&sum).position(off) {
            return Err(format!("{name}[{i}] added to: expected {}, got {}", sum[i], got[i].wide()));
        }
    }
    if d.dropout == 0.0 || d.num_layers == 1 {
        let inferred = run::infer(&backend, d, shape, &inputs, &Setup::default()).map_err(|e| e.to_string())?;
        truth.judge_all(&inferred)?;
    }
    if problem.recipe.lengths {
        // What stands in x past a sequence's length is nobody's business.
        let mut inputs = problem.inputs::<E>();
        for b in 0..shape.batch {
            for t in problem.length(b)..shape.seq_len {
                let row = problem.row(t, b);
                inputs.x[row * d.input_size..(row + 1) * d.input_size].fill(E::nan());
            }
        }
        let poisoned =
            run::train(&backend, d, shape, &inputs, &gradients, &Setup::default()).map_err(|e| e.to_string())?;
        same_bits("padding", &results, &poisoned)?;
    }
    // A NaN must not get lost.
    let mut inputs = problem.inputs::<E>();
    inputs.weights.fill(E::nan());
    let all_nan = run::infer(&backend, d, shape, &inputs, &Setup::default()).map_err(|e| e.to_string())?;
    let hn = run::get(&all_nan, "hn");
    if hn.iter().any(|value| !value.is_nan()) {
        return Err("NaN weights give numbers".to_owned());
    }
    Ok(())
}

fn options(family: &str) -> CudaOptions {
    let family = if family == WIDE { Family::Grid } else { family.parse().expect("a family's name") };
    CudaOptions { family: FamilyChoice::Prefer(family), ..CudaOptions::default() }
}

/// Run by `planted_bugs_are_caught` in a process of its own, on the kernels that `FUSED_RNN_HOST_KERNELS` names.
#[test]
#[ignore = "what planted_bugs_are_caught runs"]
fn look_for_a_bug() {
    let variable = |name: &str| std::env::var(name).expect("planted_bugs_are_caught sets it");
    let family = variable("FUSED_RNN_PLANTED_BUG_FAMILY");
    let found = match variable("FUSED_RNN_PLANTED_BUG_DTYPE").as_str() {
        "bf16" => look::<half::bf16>(&family),
        "f16" => look::<half::f16>(&family),
        _ => look::<f32>(&family),
    };
    if let Err(what) = found {
        println!("found: {what}");
        panic!("a bug");
    }
}

enum Finding {
    Nothing,
    Bug(String),
}

fn run_look(library: &Path, place: Place, sanitizer: &Path) -> Finding {
    let output = library.with_extension("txt");
    let file = fs::File::create(&output).expect("a file for the output");
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .args(["planted_bugs::look_for_a_bug", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env("FUSED_RNN_HOST_KERNELS", library)
        .env("FUSED_RNN_PLANTED_BUG_DTYPE", place.dtype)
        .env("FUSED_RNN_PLANTED_BUG_FAMILY", place.family)
        .env("RUST_BACKTRACE", "0")
        .stdout(file.try_clone().expect("a second handle"))
        .stderr(file);
    if place.sanitized {
        // The program itself is not built with it, so the sanitizer must come before all else.
        command.env("LD_PRELOAD", sanitizer).env("ASAN_OPTIONS", "detect_leaks=0");
    }
    let mut child = command.spawn().expect("this program starts");
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        if start.elapsed() > TIME_LIMIT {
            child.kill().expect("a child");
            child.wait().expect("a child");
            return Finding::Bug(format!("does not end within {TIME_LIMIT:?}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    if status.success() {
        return Finding::Nothing;
    }
    let text = fs::read_to_string(&output).unwrap_or_default();
    let said = |mark: &str| text.lines().find_map(|line| Some(line.split_once(mark)?.1.to_owned()));
    let found = said("found: ").or_else(|| said("ERROR: "));
    Finding::Bug(found.unwrap_or_else(|| format!("ends with {status}")))
}

// ---- building kernels ---------------------------------------------------------------------------------------------------

struct Builder {
    compiler: String,
    folder: PathBuf,
    /// The library of AddressSanitizer.
    sanitizer: PathBuf,
}

/// What kernels a bug is looked for in: the element type, whether with the sanitizer, and whether those of the operations alone.
type Kind = (&'static str, bool, bool);

fn kind(place: Place) -> Kind {
    (place.dtype, place.sanitized, place.family == "operations")
}

/// The kernels as they are, of an element type.
struct Baseline {
    kind: Kind,
    units: Vec<Unit>,
    /// Of the units in their order, then of registry and engine.
    objects: Vec<PathBuf>,
}

impl Builder {
    fn new() -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("planted_bugs");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder for the kernels");
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
        let asked = Command::new(&compiler).arg("-print-file-name=libasan.so").output().expect("a C++ compiler");
        let sanitizer = PathBuf::from(String::from_utf8_lossy(&asked.stdout).trim());
        Builder { compiler, folder, sanitizer }
    }

    fn run(&self, arguments: &[String]) -> Result<(), String> {
        let output = Command::new(&self.compiler).args(arguments).output().map_err(|e| e.to_string())?;
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).lines().take(5).collect::<Vec<_>>().join("\n")),
        }
    }

    /// Compiles a file against the kernels in `include`.
    fn compile(&self, source: &Path, include: &Path, sanitized: bool) -> Result<PathBuf, String> {
        let object = source.with_extension("o");
        let options = ["-std=c++17", "-O1", "-fPIC", "-w", "-fno-strict-aliasing", "-ffp-contract=off", "-c"];
        let mut arguments: Vec<String> = options.map(str::to_owned).to_vec();
        arguments.extend(sanitized.then(|| "-fsanitize=address".to_owned()));
        arguments.extend([format!("-I{}", include.display()), "-o".to_owned()]);
        arguments.extend([object.display().to_string(), source.display().to_string()]);
        self.run(&arguments)?;
        Ok(object)
    }

    fn compile_unit(&self, unit: &Unit, folder: &Path, include: &Path, sanitized: bool) -> Result<PathBuf, String> {
        let source = folder.join(format!("{}.cpp", unit.name));
        fs::write(&source, unit.host_text()).map_err(|e| e.to_string())?;
        self.compile(&source, include, sanitized)
    }

    fn baseline(&self, kind: Kind) -> Baseline {
        let (dtype, sanitized, operations) = kind;
        let is_wanted = |entry: &catalog::Entry| {
            // Those of doubles, whatever the elements are, count as f64's.
            let of_any_type = ["finish_loss", "finish_sum_of_squares"].contains(&&*entry.name);
            // With checkpoints gradients of weights in 16 bits are summed in f32, in which states beside h are copied.
            let of_any_recurrence = ["sum_partials_f32", "copy_rows_f32"].contains(&entry.name.as_str());
            if operations {
                OPERATIONS.contains(&entry.source) && (entry.dtype == dtype || of_any_type)
            } else {
                entry.dtype == dtype || of_any_recurrence
            }
        };
        let units = Unit::all(catalog::entries().into_iter().filter(is_wanted));
        let folder = self.folder.join(format!("{dtype}-{sanitized}-{operations}"));
        fs::create_dir_all(&folder).expect("a folder for the kernels");
        let objects = parallel(&units, |unit| self.compile_unit(unit, &folder, &kernels(), sanitized));
        let registry = folder.join("registry.cpp");
        fs::write(&registry, Unit::host_registry(&units)).expect("a file for the registry");
        let engine = folder.join("engine.cpp");
        fs::copy(kernels().join("host/engine.cpp"), &engine).expect("a copy of the engine");
        let mut objects: Vec<PathBuf> = objects.into_iter().map(|object| object.expect("kernels compile")).collect();
        objects.push(self.compile(&registry, &kernels(), sanitized).expect("the registry compiles"));
        objects.push(self.compile(&engine, &kernels().join("host"), sanitized).expect("the engine compiles"));
        Baseline { kind, units, objects }
    }

    fn link(&self, library: &Path, objects: &[PathBuf], sanitized: bool) -> Result<(), String> {
        let mut arguments = vec!["-shared".to_owned(), "-Wl,-Bsymbolic".to_owned(), "-o".to_owned()];
        arguments.push(library.display().to_string());
        arguments.extend(sanitized.then(|| "-fsanitize=address".to_owned()));
        arguments.extend(objects.iter().map(|object| object.display().to_string()));
        self.run(&arguments)
    }

    /// A library of kernels with the bug in those that it reaches.
    fn plant(&self, index: usize, bug: &PlantedBug, baseline: &Baseline) -> Result<PathBuf, String> {
        let (dtype, sanitized, _) = baseline.kind;
        let folder = self.folder.join(index.to_string());
        let include = folder.join("kernels");
        copy_folder(&kernels(), &include).map_err(|e| e.to_string())?;
        let path = include.join(bug.file);
        let text = fs::read_to_string(&path).map_err(|e| e.to_string())?;
        fs::write(&path, text.replacen(bug.find, bug.replace, 1)).map_err(|e| e.to_string())?;
        let sources = Sources::read(&include).map_err(|e| e.to_string())?;
        let persistent = !matches!(bug.place.family, "step" | "operations");
        let mut objects = baseline.objects.clone();
        let mut reached = 0;
        for (unit, object) in baseline.units.iter().zip(&mut objects) {
            // What the other families' kernels would show stays out of it.
            let looked_at = persistent || !unit.source.starts_with("persistent");
            if looked_at && unit.closure(&sources).iter().any(|(name, _)| *name == bug.file) {
                *object = self.compile_unit(unit, &folder, &include, sanitized)?;
                reached += 1;
            }
        }
        if reached == 0 {
            return Err(format!("no kernel of {dtype} reads {}", bug.file));
        }
        let library = folder.join("kernels.so");
        self.link(&library, &objects, sanitized)?;
        Ok(library)
    }
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy_folder(&path, &target)?;
        } else {
            fs::copy(&path, &target)?;
        }
    }
    Ok(())
}

/// Results of `work` on all items, in their order, on all cores.
fn parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<R>>> = items.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(index) else { break };
                    *results[index].lock().expect("no panic held it") = Some(work(item));
                }
            });
        }
    });
    results.into_iter().map(|result| result.into_inner().expect("no panic held it").expect("done")).collect()
}

// ---- the tests ----------------------------------------------------------------------------------------------------------

#[test]
fn every_bug_can_be_planted() {
    for bug in PLANTED_BUGS {
        let text = fs::read_to_string(kernels().join(bug.file)).expect("a file of the kernels");
        let found = text.matches(bug.find).count();
        assert_eq!(found, 1, "{}, {}: the text stands there {found} times", bug.file, bug.what);
        assert_ne!(bug.find, bug.replace, "{}, {}", bug.file, bug.what);
    }
    assert!(PLANTED_BUGS.len() >= 30);
}

#[test]
#[ignore = "takes minutes: builds kernels once a bug"]
fn planted_bugs_are_caught() {
    let wanted = std::env::var("FUSED_RNN_PLANTED_BUGS").unwrap_or_default();
    let bugs: Vec<(usize, &PlantedBug)> = PLANTED_BUGS
        .iter()
        .enumerate()
        .filter(|(_, bug)| [bug.file, bug.what, bug.place.family].iter().any(|text| text.contains(&wanted)))
        .collect();
    assert!(!bugs.is_empty(), "no bug's file, description or family contains `{wanted}`");
    let builder = Builder::new();
    let places: BTreeSet<Place> = bugs.iter().map(|(_, bug)| bug.place).collect();
    let kinds: BTreeSet<Kind> = places.iter().map(|place| kind(*place)).collect();
    let baselines: Vec<Baseline> = kinds.into_iter().map(|kind| builder.baseline(kind)).collect();
    let of =
        |place: Place| baselines.iter().find(|baseline| baseline.kind == kind(place)).expect("one for every place");
    let places: Vec<Place> = places.into_iter().collect();
    let sound = parallel(&places, |place| {
        let library = builder.folder.join(format!("sound-{}-{}-{}.so", place.dtype, place.family, place.sanitized));
        builder.link(&library, &of(*place).objects, place.sanitized).expect("the kernels link");
        (*place, run_look(&library, *place, &builder.sanitizer))
    });
    for (place, finding) in sound {
        if let Finding::Bug(what) = finding {
            panic!("the kernels fail without a planted bug, {place:?}: {what}");
        }
    }
    let findings = parallel(&bugs, |(index, bug)| {
        let finding = match builder.plant(*index, bug, of(bug.place)) {
            Ok(library) => run_look(&library, bug.place, &builder.sanitizer),
            // A bug that the compiler sees is none that the tests caught.
            Err(problem) => panic!("{}, {}: {problem}", bug.file, bug.what),
        };
        let (word, note) = match &finding {
            Finding::Nothing => ("SURVIVED", bug.survives.unwrap_or_default().to_owned()),
            Finding::Bug(what) => ("caught", what.chars().take(100).collect()),
        };
        println!("{word:8}  {}: {}  ({note})", bug.file, bug.what);
        let _ = fs::remove_dir_all(builder.folder.join(index.to_string()));
        matches!(finding, Finding::Bug(_))
    });
    let caught = findings.iter().filter(|caught| **caught).count();
    println!("{caught} of {} planted bugs caught", findings.len());
    let unexpected: Vec<String> = bugs
        .iter()
        .zip(&findings)
        .filter(|((_, bug), caught)| bug.survives.is_some() == **caught)
        .map(|((_, bug), caught)| {
            format!("{}: {} {}", bug.file, bug.what, if *caught { "is caught" } else { "survives" })
        })
        .collect();
    assert!(unexpected.is_empty(), "not as the list says:\n{}", unexpected.join("\n"));
}
