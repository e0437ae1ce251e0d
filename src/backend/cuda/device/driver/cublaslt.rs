//! The library libcublasLt: found and called at run time. All of its unsafe stands here.
//!
//! Result codes stay plain integers: libraries of later versions return codes that an enumeration would not know. Numbers of attributes
//! and types are cudarc's.
//!
//! # Where the library is looked for
//!
//! 1. `CUBLASLT_PATH`, the library or its folder. If it is set, nothing else is tried.
//! 2. The names in [`NAMES`], where the system looks for libraries.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cudarc::cublaslt::sys;
use libloading::Library;

use super::super::DevicePtr;
use super::super::cublaslt::{CublasLt, LtCompute, LtMatrix, LtProduct, LtTensors, PlannedProduct};
use super::context::{Context, Handle};
use super::optional;
use super::stream::DriverStream;
use crate::dtype::DType;
use crate::error::{Error, Result};

/// Names the library or its folder.
const VARIABLE: &str = "CUBLASLT_PATH";
/// Names of the library.
const NAMES: &[&str] = if cfg!(windows) {
    &["cublasLt64_13.dll", "cublasLt64_12.dll"]
} else {
    &["libcublasLt.so", "libcublasLt.so.13", "libcublasLt.so.12"]
};
const HELP: &str = "install it with a CUDA toolkit or `pip install nvidia-cublas-cu12` and set CUBLASLT_PATH to the library or its \
                    folder, or leave the choice of cuBLASLt out: the crate's own kernels need no library";

type Create = unsafe extern "C" fn(*mut *mut c_void) -> c_int;
type Destroy = unsafe extern "C" fn(*mut c_void) -> c_int;
type CreateLayout = unsafe extern "C" fn(*mut *mut c_void, u32, u64, u64, i64) -> c_int;
type CreateDescription = unsafe extern "C" fn(*mut *mut c_void, u32, u32) -> c_int;
type SetAttribute = unsafe extern "C" fn(*mut c_void, u32, *const c_void, usize) -> c_int;
type GetHeuristic = unsafe extern "C" fn(
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    c_int,
    *mut HeuristicResult,
    *mut c_int,
) -> c_int;
type GetConfiguration =
    unsafe extern "C" fn(*const sys::cublasLtMatmulAlgo_t, u32, *mut c_void, usize, *mut usize) -> c_int;
type Matmul = unsafe extern "C" fn(
    *mut c_void,
    *mut c_void,
    *const c_void,
    *const c_void,
    *mut c_void,
    *const c_void,
    *mut c_void,
    *const c_void,
    *const c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *const sys::cublasLtMatmulAlgo_t,
    *mut c_void,
    usize,
    *mut c_void,
) -> c_int;

/// `cublasLtMatmulHeuristicResult_t`, whose state is an integer here.
#[repr(C)]
#[derive(Clone, Copy)]
struct HeuristicResult {
    algorithm: sys::cublasLtMatmulAlgo_t,
    workspace_bytes: usize,
    state: c_int,
    waves: f32,
    reserved: [c_int; 4],
}

/// The library, loaded. It stays so until the process ends.
struct Functions {
    create: Create,
    destroy: Destroy,
    create_layout: CreateLayout,
    set_layout: SetAttribute,
    destroy_layout: Destroy,
    create_description: CreateDescription,
    set_description: SetAttribute,
    destroy_description: Destroy,
    create_preference: Create,
    set_preference: SetAttribute,
    destroy_preference: Destroy,
    heuristic: GetHeuristic,
    configuration: GetConfiguration,
    matmul: Matmul,
}

/// The library, looked for once.
fn functions() -> Result<&'static Functions> {
    static FOUND: OnceLock<std::result::Result<Functions, String>> = OnceLock::new();
    FOUND
        .get_or_init(|| find(optional::named_by(VARIABLE).as_deref()))
        .as_ref()
        .map_err(|why| Error::unsupported("products by cuBLASLt", format!("{why}; {HELP}")))
}

/// The library at a place that is given, or where the system has it.
fn find(given: Option<&Path>) -> std::result::Result<Functions, String> {
    optional::find("libcublasLt", NAMES, given, load)
}

fn load(library: &Library, path: &Path) -> std::result::Result<Functions, String> {
    macro_rules! function {
        ($name:literal) => {
            // SAFETY: the symbol has the type of the field in cublasLt.h (an enum is an int there), and the library stays loaded.
            *unsafe { library.get(concat!($name, "\0").as_bytes()) }
                .map_err(|_| format!("{} is no usable libcublasLt: it has no {}", path.display(), $name))?
        };
    }
    Ok(Functions {
        create: function!("cublasLtCreate"),
        destroy: function!("cublasLtDestroy"),
        create_layout: function!("cublasLtMatrixLayoutCreate"),
        set_layout: function!("cublasLtMatrixLayoutSetAttribute"),
        destroy_layout: function!("cublasLtMatrixLayoutDestroy"),
        create_description: function!("cublasLtMatmulDescCreate"),
        set_description: function!("cublasLtMatmulDescSetAttribute"),
        destroy_description: function!("cublasLtMatmulDescDestroy"),
        create_preference: function!("cublasLtMatmulPreferenceCreate"),
        set_preference: function!("cublasLtMatmulPreferenceSetAttribute"),
        destroy_preference: function!("cublasLtMatmulPreferenceDestroy"),
        heuristic: function!("cublasLtMatmulAlgoGetHeuristic"),
        configuration: function!("cublasLtMatmulAlgoConfigGetAttribute"),
        matmul: function!("cublasLtMatmul"),
    })
}

/// What the library calls a result code, and what it means.
fn meaning(code: c_int) -> (&'static str, &'static str) {
    match code {
        1 => (
            "CUBLAS_STATUS_NOT_INITIALIZED",
            "the library finds no GPU that it can use; update the driver, or use an older library",
        ),
        3 => ("CUBLAS_STATUS_ALLOC_FAILED", "too little memory is free"),
        7 => ("CUBLAS_STATUS_INVALID_VALUE", "please report it with the sizes that led here"),
        8 => ("CUBLAS_STATUS_ARCH_MISMATCH", "the GPU is too old for the product; use the crate's own kernels"),
        13 => ("CUBLAS_STATUS_EXECUTION_FAILED", "a kernel faulted, or an earlier one did"),
        15 => {
            ("CUBLAS_STATUS_NOT_SUPPORTED", "the library has no algorithm for the product; use the crate's own kernels")
        }
        _ => ("a code of cublasStatus_t", "see NVIDIA's documentation of the code"),
    }
}

fn check(call: &str, code: c_int) -> Result<()> {
    if code == 0 {
        return Ok(());
    }
    let (name, help) = meaning(code);
    Err(Error::Driver { call: call.to_owned(), code: code as u32, name: name.to_owned(), help: help.to_owned() })
}

/// An object of the library's, destroyed with this.
struct Object {
    raw: Handle<*mut c_void>,
    destroy: Destroy,
}

impl Object {
    fn new(call: &str, destroy: Destroy, make: impl FnOnce(*mut *mut c_void) -> c_int) -> Result<Self> {
        let mut raw = std::ptr::null_mut();
        check(call, make(&mut raw))?;
        Ok(Object { raw: Handle(raw), destroy })
    }

    fn get(&self) -> *mut c_void {
        self.raw.0
    }

    /// Sets an attribute.
    fn set<T: Copy>(&self, call: &str, set: SetAttribute, attribute: u32, value: T) -> Result<()> {
        // SAFETY: the object is of the function's kind, the attribute's type is `T`, and the pointer is valid for the call.
        check(call, unsafe { set(self.get(), attribute, (&raw const value).cast(), size_of::<T>()) })
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: made by the library, destroyed once, by the function for its kind.
        let _ = unsafe { (self.destroy)(self.get()) };
    }
}

/// Descriptors, which need neither a GPU nor a handle.
impl Functions {
    fn layout(&self, matrix: &LtMatrix, batch: u32) -> Result<Object> {
        use sys::cublasLtMatrixLayoutAttribute_t as Attribute;
        let Functions { create_layout, set_layout, destroy_layout, .. } = *self;
        let LtMatrix { dtype, rows, columns, leading, apart } = *matrix;
        let create = "cublasLtMatrixLayoutCreate";
        let layout = Object::new(create, destroy_layout, |raw| {
            // SAFETY: the pointer is valid for the call.
            unsafe { create_layout(raw, data_type(dtype) as u32, rows, columns, leading as i64) }
        })?;
        let set = |attribute: Attribute, value: i64| {
            layout.set("cublasLtMatrixLayoutSetAttribute", set_layout, attribute as u32, value)
        };
        let count = i32::try_from(batch).unwrap_or(i32::MAX);
        let attribute = Attribute::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT as u32;
        layout.set("cublasLtMatrixLayoutSetAttribute", set_layout, attribute, count)?;
        set(Attribute::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, apart as i64)?;
        Ok(layout)
    }

    fn description(&self, product: &LtProduct) -> Result<Object> {
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        let Functions { create_description, set_description, destroy_description, .. } = *self;
        let (compute, scale) = compute_types(product.compute);
        let description = Object::new("cublasLtMatmulDescCreate", destroy_description, |raw| {
            // SAFETY: the pointer is valid for the call.
            unsafe { create_description(raw, compute as u32, scale as u32) }
        })?;
        let set = |attribute: Attribute, value: u32| {
            description.set("cublasLtMatmulDescSetAttribute", set_description, attribute as u32, value)
        };
        // `CUBLAS_OP_T`, `CUBLAS_OP_N`.
        let operation = u32::from;
        set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, operation(product.transposed[0]))?;
        set(Attribute::CUBLASLT_MATMUL_DESC_TRANSB, operation(product.transposed[1]))?;
        if product.bias {
            let epilogue = sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS as u32;
            set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue)?;
            set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, data_type(product.d.dtype) as u32)?;
        }
        Ok(description)
    }

    fn preference(&self, product: &LtProduct) -> Result<Object> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
        let Functions { create_preference, set_preference, destroy_preference, .. } = *self;
        let create = "cublasLtMatmulPreferenceCreate";
        // SAFETY: the pointer is valid for the call.
        let preference = Object::new(create, destroy_preference, |raw| unsafe { create_preference(raw) })?;
        let call = "cublasLtMatmulPreferenceSetAttribute";
        let set = |attribute: Attribute, value: u32| preference.set(call, set_preference, attribute as u32, value);
        let most = Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES as u32;
        preference.set(call, set_preference, most, product.most_workspace as u64)?;
        // Of the schemes with which parts of a sum are added up, none: then the order of sums is the same every time.
        let none = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_NONE as u32;
        set(Attribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, none)?;
        set(Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, product.alignment)?;
        set(Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, product.alignment)?;
        set(Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, product.alignment)?;
        set(Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, product.alignment)?;
        Ok(preference)
    }

    /// A number of an algorithm's configuration.
    fn configured(
        &self,
        algorithm: &sys::cublasLtMatmulAlgo_t,
        attribute: sys::cublasLtMatmulAlgoConfigAttributes_t,
    ) -> Result<u32> {
        let (mut value, mut written) = (0u32, 0);
        // SAFETY: the algorithm is the library's; the pointers are valid for the call, and the attributes asked for have four bytes.
        let code = unsafe {
            (self.configuration)(algorithm, attribute as u32, (&raw mut value).cast(), size_of::<u32>(), &mut written)
        };
        check("cublasLtMatmulAlgoConfigGetAttribute", code)?;
        Ok(value)
    }
}

/// cuBLASLt in a GPU's context.
pub(super) struct Lt {
    functions: &'static Functions,
    handle: Object,
    context: Arc<Context>,
}

impl std::fmt::Debug for Lt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cuBLASLt")
    }
}

impl Lt {
    pub(super) fn new(context: &Arc<Context>) -> Result<Arc<Self>> {
        let functions = functions()?;
        let _current = context.enter()?;
        // SAFETY: the context is current; the pointer is valid for the call.
        let handle = Object::new("cublasLtCreate", functions.destroy, |raw| unsafe { (functions.create)(raw) })?;
        Ok(Arc::new(Lt { functions, handle, context: Arc::clone(context) }))
    }
}

fn data_type(dtype: DType) -> sys::cudaDataType_t {
    match dtype {
        DType::F64 => sys::cudaDataType_t::CUDA_R_64F,
        DType::F16 => sys::cudaDataType_t::CUDA_R_16F,
        DType::Bf16 => sys::cudaDataType_t::CUDA_R_16BF,
        _ => sys::cudaDataType_t::CUDA_R_32F,
    }
}

/// What sums are computed in, and the type of alpha and beta.
fn compute_types(compute: LtCompute) -> (sys::cublasComputeType_t, sys::cudaDataType_t) {
    use sys::cublasComputeType_t as Compute;
    match compute {
        LtCompute::F32 => (Compute::CUBLAS_COMPUTE_32F, sys::cudaDataType_t::CUDA_R_32F),
        LtCompute::Tf32 => (Compute::CUBLAS_COMPUTE_32F_FAST_TF32, sys::cudaDataType_t::CUDA_R_32F),
        LtCompute::F64 => (Compute::CUBLAS_COMPUTE_64F, sys::cudaDataType_t::CUDA_R_64F),
    }
}

/// A product with its descriptors and its algorithm.
struct Planned {
    lt: Arc<Lt>,
    product: LtProduct,
    /// Locked while a launch sets the bias's address and reads it.
    description: Mutex<Object>,
    a: Object,
    b: Object,
    d: Object,
    algorithm: sys::cublasLtMatmulAlgo_t,
    workspace_bytes: usize,
    name: String,
}

impl std::fmt::Debug for Planned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

/// What plans products in a context; shared by them.
#[derive(Clone, Debug)]
pub(super) struct Planner(pub(super) Arc<Lt>);

impl CublasLt<DriverStream> for Planner {
    fn plan(&self, product: &LtProduct) -> Result<Arc<dyn PlannedProduct<DriverStream>>> {
        use sys::cublasLtMatmulAlgoConfigAttributes_t as Attribute;
        let lt = &self.0;
        let _current = lt.context.enter()?;
        let layout = |matrix| lt.functions.layout(matrix, product.batch);
        let (a, b, d) = (layout(&product.a)?, layout(&product.b)?, layout(&product.d)?);
        let (description, preference) = (lt.functions.description(product)?, lt.functions.preference(product)?);
        let mut found = HeuristicResult {
            algorithm: sys::cublasLtMatmulAlgo_t { data: [0; 8] },
            workspace_bytes: 0,
            state: 0,
            waves: 0.0,
            reserved: [0; 4],
        };
        let mut count = 0;
        // SAFETY: all objects are of their kinds; C has D's layout; there is room for the one result that is asked for.
        let code = unsafe {
            (lt.functions.heuristic)(
                lt.handle.get(),
                description.get(),
                a.get(),
                b.get(),
                d.get(),
                d.get(),
                preference.get(),
                1,
                &mut found,
                &mut count,
            )
        };
        check("cublasLtMatmulAlgoGetHeuristic", code)?;
        check("cublasLtMatmulAlgoGetHeuristic", found.state)?;
        if count == 0 {
            return Err(Error::unsupported(
                format!("{product:?}"),
                "cuBLASLt has no algorithm for it that adds up in a fixed order; use the crate's own kernels",
            ));
        }
        let of = |attribute| lt.functions.configured(&found.algorithm, attribute);
        let scheme = of(Attribute::CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME)?;
        if scheme != sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_NONE as u32 {
            return Err(Error::unsupported(
                format!("cuBLASLt's algorithm with reduction scheme {scheme}"),
                "its sums may differ from call to call; use the crate's own kernels",
            ));
        }
        let name = format!(
            "cublaslt algorithm {}, tile {}, stages {}",
            of(Attribute::CUBLASLT_ALGO_CONFIG_ID)?,
            of(Attribute::CUBLASLT_ALGO_CONFIG_TILE_ID)?,
            of(Attribute::CUBLASLT_ALGO_CONFIG_STAGES_ID)?,
        );
        Ok(Arc::new(Planned {
            lt: Arc::clone(lt),
            product: *product,
            description: Mutex::new(description),
            a,
            b,
            d,
            algorithm: found.algorithm,
            workspace_bytes: found.workspace_bytes,
            name,
        }))
    }
}

impl PlannedProduct<DriverStream> for Planned {
    fn name(&self) -> &str {
        &self.name
    }

    fn workspace_bytes(&self) -> usize {
        self.workspace_bytes
    }

    unsafe fn launch(&self, stream: &DriverStream, tensors: &LtTensors) -> Result<()> {
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        let functions = self.lt.functions;
        let _current = self.lt.context.enter()?;
        // A panic elsewhere leaves a description with another bias, which is set below.
        let description = self.description.lock().unwrap_or_else(PoisonError::into_inner);
        if self.product.bias {
            let attribute = Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER as u32;
            let call = "cublasLtMatmulDescSetAttribute";
            description.set(call, functions.set_description, attribute, tensors.bias.0)?;
        }
        let wide = [tensors.alpha, tensors.beta];
        let narrow = wide.map(|factor| factor as f32);
        let [alpha, beta]: [*const c_void; 2] = match self.product.compute {
            LtCompute::F64 => [(&raw const wide[0]).cast(), (&raw const wide[1]).cast()],
            _ => [(&raw const narrow[0]).cast(), (&raw const narrow[1]).cast()],
        };
        let at = |address: DevicePtr| std::ptr::with_exposed_provenance_mut::<c_void>(address.0 as usize);
        // SAFETY: the factors have the description's scale type and are read before the call returns, as the pointer mode is the host's;
        // the algorithm is the one that the library chose for these layouts; the addresses are as the caller promises.
        let code = unsafe {
            (functions.matmul)(
                self.lt.handle.get(),
                description.get(),
                alpha,
                at(tensors.a),
                self.a.get(),
                at(tensors.b),
                self.b.get(),
                beta,
                at(tensors.d),
                self.d.get(),
                at(tensors.d),
                self.d.get(),
                &self.algorithm,
                at(tensors.workspace),
                self.workspace_bytes,
                stream.raw().cast(),
            )
        };
        check("cublasLtMatmul", code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the library is missing, the error names it, what was tried, and what to do.
    #[test]
    fn a_missing_library_is_named() {
        for given in [Path::new("/nowhere/libcublasLt.so.12"), Path::new(env!("CARGO_MANIFEST_DIR"))] {
            let why = find(Some(given)).err().unwrap();
            assert!(why.contains("no libcublasLt found") && why.contains(&*given.to_string_lossy()), "{why}");
            let error = Error::unsupported("products by cuBLASLt", format!("{why}; {HELP}")).to_string();
            assert!(error.contains("CUBLASLT_PATH") && error.contains("the crate's own kernels"), "{error}");
        }
        let all = find(Some(Path::new(env!("CARGO_MANIFEST_DIR")))).err().unwrap();
        assert!(NAMES.iter().all(|name| all.contains(name)), "{all}");
    }

    /// A library that is another one is refused with its path.
    #[test]
    #[cfg(target_os = "linux")]
    fn another_library_is_refused() {
        if let Err(why) = find(Some(Path::new("libc.so.6"))) {
            assert!(why.contains("libc.so.6 is no usable libcublasLt") && why.contains("cublasLtCreate"), "{why}");
        } else {
            panic!("libc is no cuBLASLt");
        }
    }

    /// The library itself takes every attribute that descriptors are given, which it does without a GPU.
    #[test]
    #[ignore = "needs libcublasLt, which CUBLASLT_PATH names"]
    fn the_library_takes_the_descriptors() {
        let functions = functions().unwrap();
        let matrix = |dtype| LtMatrix { dtype, rows: 768, columns: 64, leading: 1024, apart: 1 << 33 };
        let types = [
            (DType::F32, DType::F32, LtCompute::Tf32),
            (DType::F32, DType::F32, LtCompute::F32),
            (DType::F64, DType::F64, LtCompute::F64),
            (DType::Bf16, DType::F32, LtCompute::F32),
            (DType::F16, DType::F16, LtCompute::F32),
        ];
        for (element, result, compute) in types {
            for (bias, transposed) in [(false, [true, false]), (true, [false, true])] {
                let (a, d) = (matrix(element), matrix(result));
                let (batch, alignment, most_workspace) = (16, 16, 32 << 20);
                let product = LtProduct { a, b: a, d, transposed, batch, compute, bias, alignment, most_workspace };
                functions.layout(&product.d, product.batch).unwrap();
                let description = functions.description(&product).unwrap();
                let attribute = sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER as u32;
                description.set("bias", functions.set_description, attribute, 4096u64).unwrap();
                functions.preference(&product).unwrap();
            }
        }
    }

    #[test]
    fn layouts_of_results_are_those_of_the_library() {
        assert_eq!(size_of::<HeuristicResult>(), size_of::<sys::cublasLtMatmulHeuristicResult_t>());
        let state = std::mem::offset_of!(sys::cublasLtMatmulHeuristicResult_t, state);
        assert_eq!(std::mem::offset_of!(HeuristicResult, state), state);
        let (name, help) = meaning(15);
        assert!(name.contains("NOT_SUPPORTED") && help.contains("own kernels"));
    }
}
