//! What is refused, and how: every error names what was wrong, what was expected and what was found, and nothing panics.
//!
//! | file | what |
//! |---|---|
//! | `options` | options and sizes of an operator |
//! | `names` | names that are parsed, and functions that take any number |
//! | `calls` | tensors, plans and reserves of a call |

/// Runs a block for every backend in host memory.
macro_rules! host_backends {
    ($backend:ident => $body:expr) => {{
        {
            let $backend = fused_rnn::backend::reference::ReferenceBackend::<f32>::new();
            $body;
        }
        {
            let $backend = fused_rnn::backend::reference::ReferenceBackend::<f64>::new();
            $body;
        }
        {
            let $backend = fused_rnn::backend::cpu::CpuBackend::<f32>::new();
            $body;
        }
        {
            let $backend = fused_rnn::backend::cpu::CpuBackend::<f64>::new();
            $body;
        }
    }};
}

mod calls;
mod names;
mod options;
