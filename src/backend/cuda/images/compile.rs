//! From rows of the catalog to images: forms compile units, compiles them for one architecture after the other, checks what
//! comes out, and keeps it in a cache.
//!
//! `build.rs` includes this file, and the library uses it where a kernel is compiled at first use; it needs `std` and
//! [`nvrtc`](super::nvrtc), nothing else.
//!
//! A *unit* is one `.cu` file with the entry points of one element type. Its text is an `#include` of that file and a line
//! `KERNEL(name, params, threads, body)` for each entry. The headers go to NVRTC as text,
//! not as a folder, so that a unit is compiled at first use from what the library embeds in just the same way.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::catalog::Entry;
use super::nvrtc::{Compiled, Nvrtc, NvrtcError};

/// What images are made for where nothing else is asked for: machine code for Ampere, Hopper and Blackwell, and portable
/// assembly for all others from Turing on.
pub const TARGETS: [&str; 4] = ["sm_80", "sm_90a", "sm_100", "compute_75"];

/// Options of every compilation. No fast-math: the kernels say where an approximation is meant. The last two put registers and
/// spills in the log.
pub const OPTIONS: [&str; 4] = ["--std=c++17", "--fmad=true", "--ptxas-options=-v", "--ptxas-options=-warn-spills"];

/// A compute capability to compile for, as NVRTC writes it: `sm_90a`, `compute_75`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Arch {
    /// Machine code for it, not assembly.
    pub machine: bool,
    /// Compute capability times ten.
    pub compute: u32,
    /// With the instructions that this one has and no later one.
    pub specific: bool,
}

impl Arch {
    /// Machine code for this compute capability, times ten.
    pub const fn sm(compute: u32) -> Self {
        Arch { machine: true, compute, specific: false }
    }

    /// Whether a GPU of compute capability `major.minor` runs what was made for this one.
    pub fn runs_on(self, (major, minor): (u32, u32)) -> bool {
        let gpu = major * 10 + minor;
        match self {
            Arch { specific: true, compute, .. } => compute == gpu,
            Arch { machine: true, compute, .. } => compute / 10 == major && compute <= gpu,
            Arch { machine: false, compute, .. } => compute <= gpu,
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.machine { "sm" } else { "compute" };
        write!(f, "{kind}_{}{}", self.compute, if self.specific { "a" } else { "" })
    }
}

impl FromStr for Arch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let problem = || format!("`{text}` is no architecture; expected one like sm_80, sm_90a or compute_75");
        let (kind, number) = text.split_once('_').ok_or_else(problem)?;
        let (digits, specific) = number.strip_suffix('a').map_or((number, false), |digits| (digits, true));
        let machine = match kind {
            "sm" => true,
            "compute" => false,
            _ => return Err(problem()),
        };
        let compute = digits.parse().ok().filter(|compute| (50..1000).contains(compute)).ok_or_else(problem)?;
        Ok(Arch { machine, compute, specific })
    }
}

/// The files of `kernels/`: names relative to it, with `/`, and their text.
#[derive(Clone, Debug, Default)]
pub struct Sources(BTreeMap<String, String>);

impl Sources {
    /// These files.
    pub fn new<N: Into<String>, T: Into<String>>(files: impl IntoIterator<Item = (N, T)>) -> Self {
        Sources(files.into_iter().map(|(name, text)| (name.into(), text.into())).collect())
    }

    /// All `.cu` and `.cuh` files of a folder and of the folders in it.
    ///
    /// # Errors
    ///
    /// The system's error of reading a folder or file, its path in the text.
    pub fn read(folder: &Path) -> io::Result<Self> {
        let mut files = BTreeMap::new();
        let mut pending = vec![(folder.to_owned(), String::new())];
        while let Some((folder, prefix)) = pending.pop() {
            let at =
                |path: &Path, error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
            for child in std::fs::read_dir(&folder).map_err(|error| at(&folder, error))? {
                let path = child.map_err(|error| at(&folder, error))?.path();
                let name = format!("{prefix}{}", path.file_name().unwrap_or_default().to_string_lossy());
                if path.is_dir() {
                    pending.push((path, name + "/"));
                } else if path.extension().is_some_and(|extension| extension == "cu" || extension == "cuh") {
                    let text = std::fs::read_to_string(&path).map_err(|error| at(&path, error))?;
                    files.insert(name, text);
                }
            }
        }
        Ok(Sources(files))
    }

    /// Names and texts, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, text)| (name.as_str(), text.as_str()))
    }

    /// `name` and everything that it includes, directly or not, as far as it is among these files. An `#include` names a
    /// file relative to the including one or to `kernels/`; NVRTC knows no folders, so the texts given here name it relative
    /// to `kernels/` always.
    pub fn closure(&self, name: &str) -> BTreeMap<&str, String> {
        let mut found = BTreeMap::new();
        let mut pending = vec![name.to_owned()];
        while let Some(name) = pending.pop() {
            let Some((name, text)) = self.0.get_key_value(&name) else { continue };
            if found.contains_key(name.as_str()) {
                continue;
            }
            let mut resolved = String::with_capacity(text.len());
            for line in text.split_inclusive('\n') {
                match included(line).and_then(|include| Some((include, self.resolve(name, include)?))) {
                    Some((include, file)) => {
                        resolved += &line.replacen(include, file, 1);
                        pending.push(file.to_owned());
                    }
                    None => resolved += line,
                }
            }
            found.insert(name.as_str(), resolved);
        }
        found
    }

    /// The file that `include` means in the file `from`.
    fn resolve(&self, from: &str, include: &str) -> Option<&str> {
        let mut parts: Vec<&str> = from.split('/').collect();
        parts.pop();
        for part in include.split('/') {
            match part {
                "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        let beside = parts.join("/");
        self.0.get_key_value(&beside).or_else(|| self.0.get_key_value(include)).map(|(name, _)| name.as_str())
    }
}

/// The name in a line `#include "name"`.
fn included(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix('#')?.trim_start().strip_prefix("include")?.trim_start();
    rest.strip_prefix('"')?.split_once('"').map(|(name, _)| name)
}

/// One `.cu` file with the entry points of one element type.
#[derive(Clone, Debug)]
pub struct Unit {
    /// The file's stem and the element type: `gemm.f32`.
    pub name: String,
    /// The file, under `kernels/`.
    pub source: String,
    /// Its entry points.
    pub entries: Vec<Entry>,
}

impl Unit {
    /// All units of a catalog, in the order of their names.
    pub fn all(entries: impl IntoIterator<Item = Entry>) -> Vec<Unit> {
        let mut units = BTreeMap::<(&str, &str), Unit>::new();
        for entry in entries {
            let unit = units.entry((entry.source, entry.dtype)).or_insert_with(|| {
                let stem = entry.source.strip_suffix(".cu").unwrap_or(entry.source).replace('/', ".");
                let name = if entry.dtype.is_empty() { stem } else { format!("{stem}.{}", entry.dtype) };
                Unit { name, source: entry.source.to_owned(), entries: Vec::new() }
            });
            unit.entries.push(entry);
        }
        units.into_values().collect()
    }

    /// What is compiled, for the GPU and for the host: the file and these of its entries.
    pub fn text<'a>(&self, entries: impl IntoIterator<Item = &'a Entry>) -> String {
        let mut text = format!("#include \"{}\"\n", self.source);
        let entries: Vec<_> = entries.into_iter().collect();
        for header in headers(&self.source, &entries) {
            text += &format!("#include \"{header}\"\n");
        }
        for entry in entries {
            let Entry { name, params, threads, body, .. } = entry;
            text += &format!("KERNEL({name}, {params}, {threads}, {body};)\n");
        }
        text
    }

    /// Everything that the unit includes, see [`Sources::closure`].
    pub fn closure<'a>(&self, sources: &'a Sources) -> BTreeMap<&'a str, String> {
        let mut all = sources.closure(&self.source);
        for header in headers(&self.source, &self.entries.iter().collect::<Vec<_>>()) {
            all.extend(sources.closure(&header));
        }
        all
    }

    /// What is compiled for the host: all entries, and the sizes of their parameters.
    pub fn host_text(&self) -> String {
        let mut text = self.text(&self.entries);
        for Entry { name, params, .. } in &self.entries {
            text += &format!("extern \"C\" const unsigned {name}_params_size = sizeof({params});\n");
        }
        text
    }

    /// The table of all entries for the host, by which they are found there.
    pub fn host_registry(units: &[Unit]) -> String {
        let mut text = String::from(
            "struct HostKernel { const char* name; void (*entry)(const void* params); unsigned params_size; };\n",
        );
        let entries = || units.iter().flat_map(|unit| &unit.entries);
        for Entry { name, .. } in entries() {
            text +=
                &format!("extern \"C\" void {name}(const void*);\nextern \"C\" const unsigned {name}_params_size;\n");
        }
        text += "extern \"C\" const HostKernel fused_rnn_host_kernels[] = {\n";
        for Entry { name, .. } in entries() {
            text += &format!("    {{\"{name}\", {name}, {name}_params_size}},\n");
        }
        text += "    {nullptr, nullptr, 0},\n};\n";
        text += &format!("extern \"C\" const unsigned fused_rnn_host_kernel_count = {};\n", entries().count());
        text
    }
}

/// The files of the cells in `entries`, where the source is one for any cell and knows none.
fn headers(source: &str, entries: &[&Entry]) -> Vec<String> {
    let mut cells: Vec<&str> = Vec::new();
    for entry in entries.iter().filter(|entry| source.starts_with("step_") && !entry.cell.is_empty()) {
        if !cells.contains(&entry.cell) {
            cells.push(entry.cell);
        }
    }
    cells.into_iter().map(|cell| format!("cells/{cell}.cuh")).collect()
}

/// What `ptxas` says of one entry point on one architecture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes that a thread stores for want of registers.
    pub spill_stores: u32,
    /// Bytes that a thread loads for want of registers.
    pub spill_loads: u32,
    /// Local memory of a thread, bytes; arrays indexed at run time are there.
    pub stack_bytes: u32,
    /// Shared memory of a block that is not dynamic, bytes.
    pub static_shared_bytes: u32,
}

/// One compilation: some entries of a unit for one architecture, and which of its results are wanted.
#[derive(Clone, Debug)]
pub struct Job<'a> {
    /// The unit.
    pub unit: &'a Unit,
    /// What for. Always machine code, so that inline assembly is checked and registers are known.
    pub arch: Arch,
    /// Names of the entries in it.
    pub entries: BTreeSet<&'a str>,
    /// Whether the machine code is wanted.
    pub cubin: bool,
    /// Whether the assembly is wanted.
    pub ptx: bool,
}

impl<'a> Job<'a> {
    /// The compilations that give a unit's images for `targets`.
    ///
    /// Machine code holds every entry that the architecture has. Assembly holds an entry once, for the lowest architecture
    /// from the target on that has it.
    pub fn plan(unit: &'a Unit, targets: &[Arch]) -> Vec<Self> {
        let mut jobs = Vec::<Job<'_>>::new();
        let mut add = |arch: Arch, entries: BTreeSet<&'a str>, cubin: bool| match jobs
            .iter_mut()
            .find(|job| job.arch == arch && job.entries == entries)
        {
            _ if entries.is_empty() => {}
            Some(job) if cubin => job.cubin = true,
            Some(job) => job.ptx = true,
            None => jobs.push(Job { unit, arch, entries, cubin, ptx: !cubin }),
        };
        let names = |has: &dyn Fn(&Entry) -> bool| {
            unit.entries.iter().filter(|entry| has(entry)).map(|entry| entry.name.as_str()).collect()
        };
        for target in targets {
            if target.machine {
                add(*target, names(&|entry| entry.min_compute <= target.compute), true);
            } else {
                let level = |entry: &Entry| entry.min_compute.max(target.compute);
                for compute in unit.entries.iter().map(level).collect::<BTreeSet<_>>() {
                    let arch = Arch { machine: true, compute, specific: target.specific };
                    add(arch, names(&|entry| level(entry) == compute), false);
                }
            }
        }
        jobs
    }

    /// Compiles and checks. `cache` is a folder for results, and what is there already is not made again.
    ///
    /// # Errors
    ///
    /// [`Failure`], with what is wrong.
    pub fn run(&self, nvrtc: &Nvrtc, sources: &Sources, cache: Option<&Path>) -> Result<Output, Failure> {
        let failure = |problem: String| Failure { unit: self.unit.name.clone(), arch: self.arch, problem };
        let text = self.unit.text(self.unit.entries.iter().filter(|entry| self.entries.contains(entry.name.as_str())));
        let headers = self.unit.closure(sources);
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, text)| (*name, text.as_str())).collect();
        if headers.is_empty() {
            return Err(failure(format!("the catalog names {}, and kernels/ has no such file", self.unit.source)));
        }
        let arch = self.arch.to_string();
        let mut hash = Hash::new();
        let (major, minor) = nvrtc.version();
        hash.add(&format!("{major}.{minor} {arch} {}", OPTIONS.join(" ")));
        hash.add(&text);
        for (name, text) in &headers {
            hash.add(name).add(text);
        }
        let name = format!("{}-{arch}-{:032x}", self.unit.name, hash.0);

        let kept = cache.and_then(|folder| Kept::new(folder, &name).read());
        let reused = kept.is_some();
        let compiled = match kept {
            Some(compiled) => compiled,
            None => nvrtc.compile(&self.unit.name, &text, &headers, &arch, &OPTIONS).map_err(|error| {
                failure(match error {
                    NvrtcError::Compile { log, .. } => format!("it does not compile:\n{}", log.trim_end()),
                    error => error.to_string(),
                })
            })?,
        };
        let report = self.check(&compiled).map_err(failure)?;
        if let Some(folder) = cache
            && !reused
        {
            Kept::new(folder, &name)
                .write(&compiled)
                .map_err(|error| failure(format!("{} cannot be written: {error}", folder.display())))?;
        }
        Ok(Output { compiled, resources: report.0, warnings: report.1, reused, cache_name: name })
    }

    /// That all entries are there, that none spills, and nothing else went wrong quietly. Gives the entries' resources and
    /// the compiler's warnings.
    fn check(&self, compiled: &Compiled) -> Result<(BTreeMap<String, Resources>, Vec<String>), String> {
        let Log { mut resources, warnings } = Log::parse(&compiled.log)?;
        let mut problems = Vec::new();
        for (kind, present) in [
            ("cubin", cubin_entries(&compiled.cubin).map_err(|error| format!("its cubin cannot be read: {error}"))?),
            ("PTX", ptx_entries(&compiled.ptx)),
        ] {
            for name in &self.entries {
                if !present.contains(*name) {
                    problems.push(format!("the {kind} lacks the entry point {name}; is its body behind an #if?"));
                }
            }
        }
        resources.retain(|name, _| self.entries.contains(name.as_str()));
        for name in &self.entries {
            match resources.get(*name) {
                None => problems.push(format!("the log says nothing about {name}")),
                Some(Resources { spill_stores: 0, spill_loads: 0, static_shared_bytes: 0, .. }) => {}
                Some(entry) if entry.static_shared_bytes > 0 => problems.push(format!(
                    "{name} has {} bytes of static shared memory; kernels use dynamic memory only (SHARED)",
                    entry.static_shared_bytes
                )),
                Some(entry) => problems.push(format!(
                    "{name} spills: {} bytes of stores, {} bytes of loads, at {} registers; give it fewer values to \
                     hold, or fewer threads",
                    entry.spill_stores, entry.spill_loads, entry.registers
                )),
            }
        }
        problems.extend(warnings.iter().filter(|line| line.contains("Potential Performance Loss")).cloned());
        if problems.is_empty() { Ok((resources, warnings)) } else { Err(problems.join("\n")) }
    }
}

/// What a [`Job`] gives.
#[derive(Clone, Debug)]
pub struct Output {
    /// Machine code, assembly, log.
    pub compiled: Compiled,
    /// By entry point.
    pub resources: BTreeMap<String, Resources>,
    /// What the compiler had to say besides.
    pub warnings: Vec<String>,
    /// It came from the cache.
    pub reused: bool,
    /// Its files' name in the cache, without extension.
    pub cache_name: String,
}

/// What is wrong with a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The unit.
    pub unit: String,
    /// What it was compiled for.
    pub arch: Arch,
    /// What is wrong; several lines.
    pub problem: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel {} for {}: {}", self.unit, self.arch, self.problem)
    }
}

impl std::error::Error for Failure {}

/// `work` on every item, on so many threads; results in the items' order.
pub fn parallel<T: Sync, R: Send>(items: &[T], threads: usize, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return done };
            done.push((index, work(item)));
        }
    };
    let mut results: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.clamp(1, items.len().max(1))).map(|_| scope.spawn(worker)).collect();
        let join = |worker: std::thread::ScopedJoinHandle<'_, _>| match worker.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        workers.into_iter().flat_map(join).collect()
    });
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// FNV-1a of 128 bits, over pieces that keep their bounds.
#[derive(Clone, Copy, Debug)]
pub struct Hash(pub u128);

impl Hash {
    /// Of nothing.
    pub const fn new() -> Self {
        Hash(0x6c62272e07bb014262b821756295c58d)
    }

    /// Goes on with a piece.
    pub fn add(&mut self, piece: &str) -> &mut Self {
        let len = (piece.len() as u64).to_le_bytes();
        for byte in len.iter().chain(piece.as_bytes()) {
            self.0 = (self.0 ^ u128::from(*byte)).wrapping_mul(0x0000000001000000000000000000013b);
        }
        self
    }
}

impl Default for Hash {
    fn default() -> Self {
        Self::new()
    }
}

/// Writes a file so that another process sees all of it or nothing.
///
/// # Errors
///
/// The system's error of writing or renaming the file.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let part = path.with_added_extension(format!("{}.part", std::process::id()));
    std::fs::write(&part, bytes)?;
    std::fs::rename(&part, path)
}

/// A result in the cache: `NAME.ptx`, `NAME.cubin`, and `NAME.log`, which is written last.
struct Kept([PathBuf; 3]);

impl Kept {
    fn new(folder: &Path, name: &str) -> Self {
        Kept(["ptx", "cubin", "log"].map(|extension| folder.join(format!("{name}.{extension}"))))
    }

    fn read(&self) -> Option<Compiled> {
        let [ptx, cubin, log] = &self.0;
        let log = std::fs::read_to_string(log).ok()?;
        Some(Compiled { ptx: std::fs::read(ptx).ok()?, cubin: std::fs::read(cubin).ok()?, log })
    }

    fn write(&self, compiled: &Compiled) -> io::Result<()> {
        let [ptx, cubin, log] = &self.0;
        write_whole(ptx, &compiled.ptx)?;
        write_whole(cubin, &compiled.cubin)?;
        write_whole(log, compiled.log.as_bytes())
    }
}

/// What a log of `--ptxas-options=-v` says.
struct Log {
    resources: BTreeMap<String, Resources>,
    warnings: Vec<String>,
}

impl Log {
    fn parse(log: &str) -> Result<Self, String> {
        let mut resources = BTreeMap::<String, Resources>::new();
        let mut warnings = Vec::new();
        let mut current = None;
        for line in log.lines().map(|line| line.trim_matches(|c: char| c.is_whitespace() || c == '\0')) {
            let number = |before: &str| -> u32 {
                let digits = line.split(before).next().unwrap_or_default();
                let digits = digits.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
                digits.parse().unwrap_or(0)
            };
            if let Some(rest) = line.split_once("Compiling entry function '").map(|(_, rest)| rest) {
                current = rest.split_once('\'').map(|(name, _)| name.to_owned());
            } else if line.contains("bytes stack frame") {
                if let Some(name) = &current {
                    let entry = resources.entry(name.clone()).or_default();
                    entry.stack_bytes = number(" bytes stack frame");
                    entry.spill_stores = number(" bytes spill stores");
                    entry.spill_loads = number(" bytes spill loads");
                }
            } else if line.contains("Used ") && line.contains(" registers") {
                let name = current.as_ref().ok_or_else(|| format!("a log that is not understood: {line}"))?;
                let entry = resources.entry(name.clone()).or_default();
                entry.registers = number(" registers");
                entry.static_shared_bytes = number(" bytes smem");
            } else if !(line.is_empty() || line.starts_with("ptxas info") && !line.contains("(C")) {
                warnings.push(line.to_owned());
            }
        }
        Ok(Log { resources, warnings })
    }
}

/// Names of the kernels in PTX.
fn ptx_entries(ptx: &[u8]) -> BTreeSet<String> {
    let text = String::from_utf8_lossy(ptx);
    let name = |line: &str| {
        let (_, rest) = line.split_once(".entry ")?;
        Some(rest.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).next()?.to_owned())
    };
    text.lines().filter_map(name).collect()
}

/// Names of the kernels in a cubin: symbols of an ELF file that NVIDIA's flag marks as entry points.
fn cubin_entries(cubin: &[u8]) -> Result<BTreeSet<String>, String> {
    const SHT_SYMTAB: u32 = 2;
    const STT_FUNC: u8 = 2;
    const STO_CUDA_ENTRY: u8 = 0x10;
    let bytes = |from: u64, len: u64| -> Result<&[u8], String> {
        let range = usize::try_from(from).ok().zip(from.checked_add(len).and_then(|end| usize::try_from(end).ok()));
        range.and_then(|(from, end)| cubin.get(from..end)).ok_or_else(|| format!("{len} bytes at {from} are missing"))
    };
    let number = |from: u64, len: u64| -> Result<u64, String> {
        Ok(bytes(from, len)?.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    };
    if bytes(0, 6)? != b"\x7fELF\x02\x01" {
        return Err("it is no 64-bit ELF file".to_owned());
    }
    let (table, size, count) = (number(40, 8)?, number(58, 2)?, number(60, 2)?);
    let header = |index: u64| table.wrapping_add(index.wrapping_mul(size));
    let mut entries = BTreeSet::new();
    for index in 0..count {
        let section = header(index);
        if number(section + 4, 4)? != u64::from(SHT_SYMTAB) {
            continue;
        }
        let (symbols, len) = (number(section + 24, 8)?, number(section + 32, 8)?);
        let strings = header(number(section + 40, 4)?);
        let (names, names_len) = (number(strings + 24, 8)?, number(strings + 32, 8)?);
        let names = bytes(names, names_len)?;
        for symbol in bytes(symbols, len)?.chunks_exact(24) {
            let [n0, n1, n2, n3, info, other, ..] = symbol else { continue };
            if info & 0xf == STT_FUNC && other & STO_CUDA_ENTRY != 0 {
                let name = names.get(u32::from_le_bytes([*n0, *n1, *n2, *n3]) as usize..).unwrap_or_default();
                let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
                entries.insert(String::from_utf8_lossy(name).into_owned());
            }
        }
    }
    Ok(entries)
}
