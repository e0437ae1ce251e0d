//! The kernels compiled for the host, with the engine that runs them there: a static library.
//!
//! Only what changed is compiled: every object stands in the cache under the hash of all that goes into it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::catalog;
use crate::compile::{Hash, Sources, Unit, write_whole};
use crate::device::{cache, cargo_variable, switched_on};

/// Nothing that moves a rounding: what the host computes is compared with the GPU's.
const OPTIONS: [&str; 2] = ["-fno-strict-aliasing", "-ffp-contract=off"];
const SANITIZERS: &str = "-fsanitize=address,undefined";

/// A file to compile, and the name of its object in the cache.
struct Object {
    source: PathBuf,
    kept: PathBuf,
}

pub fn build() -> Result<(), String> {
    let kernels = cargo_variable("CARGO_MANIFEST_DIR")?.join("kernels");
    let generated = cargo_variable("OUT_DIR")?.join("host");
    let sanitize = switched_on("FUSED_RNN_HOST_SANITIZE");
    let cache = cache()?;
    fs::create_dir_all(&generated).map_err(|error| format!("cannot create {}: {error}", generated.display()))?;

    let mut compiler = cc::Build::new();
    // The objects are the same in all profiles, so that the cache serves them all.
    compiler.cpp(true).std("c++17").opt_level(2).debug(sanitize).include(&kernels).include(kernels.join("host"));
    // `#pragma unroll`; and values that only some threads have, which g++ cannot tell from those that nobody set.
    compiler.flag_if_supported("-Wno-unknown-pragmas").flag_if_supported("-Wno-maybe-uninitialized");
    for option in OPTIONS {
        compiler.flag(option);
    }
    if sanitize {
        compiler.flag(SANITIZERS).flag("-fno-sanitize-recover=undefined").flag("-fno-omit-frame-pointer");
        // rustc links without the compiler's own libraries. AddressSanitizer's must come before all others of its process:
        // as g++'s static one it does. Programs and tests need this; a library alone links nothing.
        for argument in ["-Wl,--push-state,--whole-archive", "-l:libasan.a", "-Wl,--pop-state", "-lubsan"] {
            println!("cargo::rustc-link-arg={argument}");
        }
    }

    let tool = compiler.try_get_compiler().map_err(|error| format!("`emulated` needs a C++17 compiler: {error}"))?;
    let mut common = Hash::new();
    common.add(&format!("{:?} {:?}", tool.path(), tool.args()));
    common.add(&version(tool.path()));
    // The engine's files, which all others include.
    let engine = files(&kernels.join("host"))?;
    for file in &engine {
        common.add(&file.to_string_lossy()).add(&read(file)?);
    }

    let sources = Sources::read(&kernels).map_err(|error| format!("cannot read the kernels: {error}"))?;
    let units = Unit::all(catalog::entries());
    let object = |name: &str, source: PathBuf, hash: Hash| Object {
        source,
        kept: cache.join(format!("host.{name}-{:032x}.o", hash.0)),
    };
    let mut objects = Vec::new();
    for unit in &units {
        let text = unit.host_text();
        let mut hash = common;
        hash.add(&text);
        for (name, text) in unit.closure(&sources) {
            hash.add(name).add(&text);
        }
        objects.push(object(&unit.name, generate(&generated, &unit.name, &text)?, hash));
    }
    let registry = Unit::host_registry(&units);
    objects.push(object("registry", generate(&generated, "registry", &registry)?, *common.clone().add(&registry)));
    for file in engine.iter().filter(|file| file.extension().is_some_and(|extension| extension == "cpp")) {
        // `common` has its text.
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        objects.push(object(&name, file.clone(), *common.clone().add(&name)));
    }

    let stale: Vec<&Object> = objects.iter().filter(|object| !object.kept.is_file()).collect();
    println!("{} objects for the host, {} of them made now", objects.len(), stale.len());
    if !stale.is_empty() {
        let mut build = compiler.clone();
        build.out_dir(generated.join("objects")).files(stale.iter().map(|object| &object.source));
        let made = build.try_compile_intermediates().map_err(|error| format!("kernels for the host: {error}"))?;
        for (object, made) in stale.iter().zip(made) {
            let bytes = fs::read(&made).map_err(|error| format!("cannot read {}: {error}", made.display()))?;
            write_whole(&object.kept, &bytes)
                .map_err(|error| format!("cannot write {}: {error}", object.kept.display()))?;
        }
    }
    let mut archive = cc::Build::new();
    archive.cpp(true).objects(objects.iter().map(|object| &object.kept));
    archive.try_compile("fused_rnn_host").map_err(|error| format!("kernels for the host: {error}"))?;
    if cache.starts_with(cargo_variable("OUT_DIR")?) {
        for file in files(&cache)?.into_iter().filter(|file| file.extension().is_some_and(|e| e == "o")) {
            if !objects.iter().any(|object| object.kept == file) {
                // It is in nobody's way if it stays.
                let _ = fs::remove_file(file);
            }
        }
    }
    Ok(())
}

fn read(file: &Path) -> Result<String, String> {
    fs::read_to_string(file).map_err(|error| format!("cannot read {}: {error}", file.display()))
}

/// The files of a folder, in order.
fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let list = fs::read_dir(folder).map_err(|error| format!("cannot read {}: {error}", folder.display()))?;
    let mut files: Vec<PathBuf> = list.flatten().map(|file| file.path()).filter(|path| path.is_file()).collect();
    files.sort();
    Ok(files)
}

/// What the compiler says of itself; an update of it in place makes everything anew.
fn version(compiler: &Path) -> String {
    let output = std::process::Command::new(compiler).arg("--version").output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

fn generate(folder: &Path, name: &str, text: &str) -> Result<PathBuf, String> {
    let path = folder.join(format!("{name}.cpp"));
    write_whole(&path, text.as_bytes()).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    Ok(path)
}
