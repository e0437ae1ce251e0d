//! The compiled kernels: which images there are, and which of them a GPU loads for a kernel.
//!
//! `build.rs` compiles the units of the catalog and embeds the images here. [`image_for`] gives the one that a device loads;
//! where the build had no libnvrtc, or no image suits the GPU, the unit is compiled at first use, if libnvrtc can be found
//! then ([`nvrtc`]).

pub mod assembly;
pub mod catalog;
pub mod compile;
pub mod nvrtc;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, OnceLock, PoisonError};

use crate::error::{Error, Result};
use compile::{Arch, Job, Resources, Sources, Unit};
use nvrtc::{Nvrtc, NvrtcError};

include!(concat!(env!("OUT_DIR"), "/images.rs"));

/// Form of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageKind {
    /// Machine code of one compute capability.
    Cubin,
    /// Assembly that the driver compiles when it is loaded, null-terminated.
    Ptx,
}

/// An entry point in an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageEntry {
    /// Symbol, as in the catalog.
    pub name: Cow<'static, str>,
    /// What it needs on the image's architecture. In PTX: on the lowest one; the driver decides for the others.
    pub resources: Resources,
}

/// A module to load: one unit of the catalog for one architecture.
#[derive(Clone, Debug)]
pub struct Image {
    unit: Cow<'static, str>,
    arch: Arch,
    entries: Cow<'static, [ImageEntry]>,
    size: usize,
    /// Deflated.
    packed: &'static [u8],
    unpacked: OnceLock<Vec<u8>>,
}

impl Image {
    /// The unit: source file and element type, as in `gemm.f32`. With [`arch`](Self::arch) it names the image.
    pub fn unit(&self) -> &str {
        &self.unit
    }

    /// What it was compiled for: `sm_90a` (machine code), `compute_75` (assembly).
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// Machine code or assembly.
    pub fn kind(&self) -> ImageKind {
        if self.arch.machine { ImageKind::Cubin } else { ImageKind::Ptx }
    }

    /// The entry points in it.
    pub fn entries(&self) -> &[ImageEntry] {
        &self.entries
    }

    /// One of its entry points.
    pub fn entry(&self, name: &str) -> Option<&ImageEntry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// What `cuModuleLoadData` takes. Unpacked the first time.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where the embedded bytes are damaged.
    pub fn bytes(&self) -> Result<&[u8]> {
        if let Some(bytes) = self.unpacked.get() {
            return Ok(bytes);
        }
        let unpacked = miniz_oxide::inflate::decompress_to_vec_with_limit(self.packed, self.size).ok();
        let bytes = unpacked.filter(|bytes| bytes.len() == self.size).ok_or_else(|| {
            let what = format!("the embedded image of {} for {}", self.unit, self.arch);
            Error::unsupported(what, "it is damaged; build the program again")
        })?;
        Ok(self.unpacked.get_or_init(|| bytes))
    }

    /// What `cuModuleLoadData` takes for one entry point: machine code as it is; of assembly, which the driver has to compile, no more than
    /// that needs.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where the embedded bytes are damaged, or the image has no such entry point.
    pub fn bytes_for(&self, entry: &str) -> Result<Cow<'_, [u8]>> {
        let bytes = self.bytes()?;
        if self.kind() == ImageKind::Cubin {
            return Ok(Cow::Borrowed(bytes));
        }
        let one = std::str::from_utf8(bytes).ok().and_then(|all| assembly::only(all, entry));
        let one = one.ok_or_else(|| {
            let what = format!("{entry} in the embedded image of {} for {}", self.unit, self.arch);
            Error::unsupported(what, "it is not there; build the program again")
        })?;
        Ok(Cow::Owned(one.into_bytes()))
    }

    /// Length of [`bytes`](Self::bytes).
    pub fn size(&self) -> usize {
        self.size
    }

    /// Bytes that it takes in the program.
    pub fn packed_size(&self) -> usize {
        self.packed.len()
    }
}

/// The images that were made when the crate was built; none where there was no libnvrtc then.
pub fn images() -> &'static [Image] {
    &IMAGES
}

/// Version of the libnvrtc that made them.
pub fn built_with() -> Option<(u32, u32)> {
    BUILT_WITH
}

/// The sources that the images were, or will be, made from.
pub fn sources() -> &'static Sources {
    static SOURCES: LazyLock<Sources> = LazyLock::new(|| Sources::new(SOURCE_FILES.iter().copied()));
    &SOURCES
}

/// An entry point in every image that has it.
pub fn entry(name: &str) -> impl Iterator<Item = (&'static Image, &'static ImageEntry)> {
    IMAGES.iter().filter_map(move |image| Some((image, image.entry(name)?)))
}

/// The image to load for the entry point `name` on a GPU of this compute capability: machine code if there is some for it,
/// else assembly, else what [`compile_for`] makes.
///
/// # Errors
///
/// [`Error::Unsupported`] where the catalog has no such entry point, where the GPU is too old for it, where there is no libnvrtc, or where
/// the unit does not compile.
pub fn image_for(name: &str, compute_capability: (u32, u32)) -> Result<&'static Image> {
    match choose(&IMAGES, name, compute_capability) {
        Some(image) => Ok(image),
        None => compile_for(name, compute_capability),
    }
}

/// The assembly of the entry point `name` that a GPU of this compute capability could run: of the highest architecture that there is.
///
/// # Errors
///
/// As of [`image_for`].
#[cfg(feature = "ptx")]
pub fn ptx_for(name: &str, compute_capability: (u32, u32)) -> Result<&'static Image> {
    let assembly = IMAGES.iter().filter(|image| !image.arch.machine && image.arch.runs_on(compute_capability));
    let found = assembly
        .filter(|image| image.entry(name).is_some())
        .max_by_key(|image| (image.arch.compute, image.arch.specific));
    match found {
        Some(image) => Ok(image),
        None => compile(name, compute_capability, false),
    }
}

/// Compiles the unit of the entry point `name` for exactly this compute capability, once in a process. Also the way out where
/// a driver is too old for an image's assembly.
///
/// # Errors
///
/// [`Error::Unsupported`] where the catalog has no such entry point, where the GPU is too old for it, where there is no
/// libnvrtc, or where the unit does not compile.
pub fn compile_for(name: &str, compute_capability: (u32, u32)) -> Result<&'static Image> {
    compile(name, compute_capability, true)
}

/// [`compile_for`], to machine code where that is asked for and libnvrtc can make it, else to assembly.
fn compile(name: &str, compute_capability: (u32, u32), machine: bool) -> Result<&'static Image> {
    static COMPILED: LazyLock<Mutex<HashMap<(String, Arch), &'static Image>>> = LazyLock::new(Mutex::default);
    static UNITS: LazyLock<Vec<Unit>> = LazyLock::new(|| Unit::all(catalog::entries()));
    static NVRTC: LazyLock<Result<Nvrtc, NvrtcError>> = LazyLock::new(Nvrtc::find);

    let (major, minor) = compute_capability;
    let compute = major * 10 + minor;
    let refused = |why: String| Error::unsupported(format!("kernel {name} on compute capability {major}.{minor}"), why);
    let find = |unit: &'static Unit| Some((unit, unit.entries.iter().find(|entry| entry.name == name)?));
    let (unit, entry) =
        UNITS.iter().find_map(find).ok_or_else(|| refused("the catalog has no such kernel".to_owned()))?;
    if entry.min_compute > compute {
        return Err(refused(format!("it needs {}.{} or later", entry.min_compute / 10, entry.min_compute % 10)));
    }
    let nvrtc = NVRTC.as_ref().map_err(|error| {
        let made = match BUILT_WITH {
            None => "this build has no compiled kernels, and they cannot be compiled now",
            Some(_) => "no image of this build suits it, and it cannot be compiled now",
        };
        refused(format!("{made}: {error}"))
    })?;
    // A GPU that this libnvrtc does not know yet takes the assembly of the latest one that it does.
    let known = nvrtc.architectures();
    let latest = known.iter().copied().filter(|known| *known <= compute).max();
    let latest = latest.ok_or_else(|| {
        refused(format!("{} (version {:?}) no longer compiles for it", nvrtc.path().display(), nvrtc.version()))
    })?;
    let arch =
        Arch { machine: machine && latest == compute, compute: latest, specific: latest == compute && compute == 90 };

    // Held while compiling: another thread that wants the same unit waits for it instead of making it again.
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(image) = compiled.get(&(unit.name.clone(), arch)) {
        return Ok(image);
    }
    let entries = unit.entries.iter().filter(|entry| entry.min_compute <= latest);
    let job = Job {
        unit,
        arch: Arch { machine: true, ..arch },
        entries: entries.map(|entry| entry.name.as_str()).collect(),
        cubin: arch.machine,
        ptx: !arch.machine,
    };
    if !job.entries.contains(name) {
        return Err(refused(format!("{} is too old to compile it", nvrtc.path().display())));
    }
    let output = job.run(nvrtc, sources(), None).map_err(|failure| refused(failure.to_string()))?;
    let entries = output.resources.into_iter().map(|(name, resources)| ImageEntry { name: name.into(), resources });
    let bytes = if arch.machine { output.compiled.cubin } else { output.compiled.ptx };
    let image: &'static Image = Box::leak(Box::new(Image {
        unit: Cow::Borrowed(&unit.name),
        arch,
        entries: entries.collect(),
        size: bytes.len(),
        packed: &[],
        unpacked: OnceLock::from(bytes),
    }));
    compiled.insert((unit.name.clone(), arch), image);
    Ok(image)
}

/// Machine code of the highest architecture that runs on the GPU, else such assembly.
fn choose<'a>(images: &'a [Image], name: &str, compute_capability: (u32, u32)) -> Option<&'a Image> {
    images
        .iter()
        .filter(|image| image.arch.runs_on(compute_capability) && image.entry(name).is_some())
        .max_by_key(|image| (image.arch.machine, image.arch.compute, image.arch.specific))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(unit: &'static str, arch: &str, entries: &[&'static str]) -> Image {
        let entry = |name: &&'static str| ImageEntry { name: Cow::Borrowed(*name), resources: Resources::default() };
        Image {
            unit: Cow::Borrowed(unit),
            arch: arch.parse().unwrap(),
            entries: entries.iter().map(entry).collect(),
            size: 0,
            packed: &[],
            unpacked: OnceLock::from(Vec::new()),
        }
    }

    #[test]
    fn a_gpu_gets_machine_code_of_its_own_generation_else_assembly() {
        let images: Vec<Image> = ["sm_80", "sm_86", "sm_90a", "sm_100", "compute_75", "compute_80"]
            .map(|arch| image("gemm.f32", arch, &["gemm_f32"]))
            .into();
        let chosen = |compute| choose(&images, "gemm_f32", compute).map(|image| image.arch.to_string());
        for (compute, arch) in [
            ((7, 5), "compute_75"),
            ((8, 0), "sm_80"),
            ((8, 6), "sm_86"),
            ((8, 7), "sm_86"),
            ((8, 9), "sm_86"),
            ((9, 0), "sm_90a"),
            ((10, 0), "sm_100"),
            ((10, 3), "sm_100"),
            ((11, 0), "compute_80"),
            ((12, 0), "compute_80"),
        ] {
            assert_eq!(chosen(compute).as_deref(), Some(arch), "{compute:?}");
        }
        assert_eq!(chosen((7, 0)), None);
        assert!(choose(&images, "gemm_f64", (8, 0)).is_none());
    }

    #[test]
    fn an_entry_that_an_image_lacks_is_looked_for_in_the_next() {
        let images = [
            image("cells", "sm_80", &["small"]),
            image("cells", "compute_75", &["small"]),
            image("cells", "compute_80", &["large"]),
        ];
        assert_eq!(choose(&images, "small", (8, 6)).unwrap().arch.to_string(), "sm_80");
        assert_eq!(choose(&images, "large", (8, 6)).unwrap().arch.to_string(), "compute_80");
        assert!(choose(&images, "large", (7, 5)).is_none());
    }

    #[test]
    fn images_are_unpacked_as_they_were() {
        for image in images() {
            let bytes = image.bytes().unwrap();
            assert_eq!(bytes.len(), image.size());
            match image.kind() {
                ImageKind::Cubin => assert!(bytes.starts_with(b"\x7fELF"), "{}", image.unit()),
                ImageKind::Ptx => assert_eq!(bytes.last(), Some(&0), "{}", image.unit()),
            }
        }
        let mut damaged = image("gemm.f32", "sm_80", &[]);
        (damaged.size, damaged.packed, damaged.unpacked) = (3, &[7, 7], OnceLock::new());
        let message = damaged.bytes().unwrap_err().to_string();
        assert!(message.contains("gemm.f32 for sm_80") && message.contains("damaged"), "{message}");
    }

    #[test]
    fn an_unknown_kernel_is_refused_by_name() {
        let message = image_for("no_such_kernel", (9, 0)).unwrap_err().to_string();
        assert!(message.contains("no_such_kernel") && message.contains("9.0"), "{message}");
        assert!(message.contains("the catalog has no such kernel"), "{message}");
    }

    #[test]
    fn every_entry_of_the_catalog_is_in_an_image_of_every_gpu() {
        if built_with().is_none() {
            assert!(images().is_empty());
            return;
        }
        for entry in catalog::entries() {
            for compute in [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (10, 3), (12, 0), (12, 1)] {
                let found = choose(images(), &entry.name, compute).is_some();
                assert_eq!(found, entry.min_compute <= compute.0 * 10 + compute.1, "{} on {compute:?}", entry.name);
            }
        }
    }
}
