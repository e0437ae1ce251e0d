//! Structs that kernels declare too: `mirrored!`. A test compares where every field stands.

/// A struct: its name, its bytes, and its fields, each with its offset and its bytes.
#[cfg(all(test, feature = "emulated"))]
pub(crate) type Mirrored = (&'static str, usize, &'static [(&'static str, usize, usize)]);

/// Structs as in C, each with its name there and its fields.
macro_rules! mirrored {
    ($($name:ident { $($field:ident: $type:ty),* $(,)? })*) => {
        $(
            #[derive(Clone, Copy, Debug, ::bytemuck::Pod, ::bytemuck::Zeroable)]
            #[repr(C)]
            pub(crate) struct $name {
                $(pub(crate) $field: $type,)*
            }

            impl $crate::backend::cuda::kernel::launch::Params for $name {
                const NAME: &'static str = stringify!($name);
            }
        )*

        /// All of them.
        #[cfg(all(test, feature = "emulated"))]
        const MIRRORED: &[$crate::backend::cuda::kernel::mirrored::Mirrored] = &[$((
            stringify!($name),
            size_of::<$name>(),
            &[$((stringify!($field), ::std::mem::offset_of!($name, $field), size_of::<$type>())),*],
        )),*];
    };
}

pub(crate) use mirrored;

/// Asks the C++ compiler whether every field stands in the kernels' structs where it does here.
#[cfg(all(test, feature = "emulated"))]
pub(crate) fn compare(structs: &[Mirrored]) {
    use std::fmt::Write;
    use std::io::Write as _;
    use std::path::Path;
    use std::process::{Command, Stdio};

    let mut text = String::from("#include \"params_ops.cuh\"\n#include \"params_gemm.cuh\"\n#include <cstddef>\n");
    for (name, size, fields) in structs {
        writeln!(text, "static_assert(sizeof({name}) == {size}, \"the size of {name}\");").unwrap();
        for (field, offset, bytes) in *fields {
            let at = format!("offsetof({name}, {field}) == {offset} && sizeof({name}::{field}) == {bytes}");
            writeln!(text, "static_assert({at}, \"{name}::{field}\");").unwrap();
        }
    }
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let mut command = Command::new(compiler);
    command.args(["-std=c++17", "-fsyntax-only", "-x", "c++", "-", "-I"]).arg(kernels);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
