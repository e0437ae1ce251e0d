//! `examples/lstm.c`, compiled with warnings as errors, linked in both ways, gives what stands in `examples/lstm.txt`; the program of `docs/c.md`
//! runs.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where this build's libraries are.
fn libraries() -> PathBuf {
    let mut folder = std::env::current_exe().expect("this test").parent().expect("its folder").to_owned();
    if !folder.join("libfused_rnn_c.so").exists() && !folder.join("libfused_rnn_c.dylib").exists() {
        folder.pop();
    }
    folder
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, text(&output.stderr));
    text(&output.stdout)
}

/// Compiles a program, runs it, and gives what it prints.
fn compiled(source: &Path, standard: &str, name: &str, link: &[String]) -> String {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut compile = Command::new("cc");
    compile.args([standard, "-Wall", "-Wextra", "-Werror", "-I"]);
    compile.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("include"));
    compile.arg(source).args(link).args(["-lm", "-o"]).arg(&program);
    run(&mut compile);
    run(&mut Command::new(&program))
}

fn gives_what_it_should(standard: &str, name: &str, link: &[String]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let printed = compiled(&root.join("examples/lstm.c"), standard, name, link);
    let path = root.join("examples/lstm.txt");
    if std::env::var_os("FUSED_RNN_WRITE_EXAMPLE").is_some() {
        std::fs::write(&path, &printed).expect("the output is written");
    }
    println!("{printed}");
    assert_eq!(printed, std::fs::read_to_string(&path).expect("lstm.txt"), "{name}");
}

#[test]
fn the_example_gives_what_it_should() {
    let folder = libraries().display().to_string();
    let shared = [format!("-L{folder}"), "-lfused_rnn_c".to_owned(), format!("-Wl,-rpath,{folder}")];
    gives_what_it_should("-std=c99", "lstm-shared", &shared);
    let archive = [format!("{folder}/libfused_rnn_c.a"), "-lpthread".to_owned(), "-ldl".to_owned()];
    gives_what_it_should("-std=c11", "lstm-static", &archive);
}

#[test]
fn the_program_of_the_documentation_runs() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/c.md");
    let text = std::fs::read_to_string(&page).expect("docs/c.md");
    let code = text.split("```c\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a program");
    let source = Path::new(env!("CARGO_TARGET_TMPDIR")).join("smallest.c");
    std::fs::write(&source, code).expect("the program is written");
    let folder = libraries().display().to_string();
    let archive = [format!("{folder}/libfused_rnn_c.a"), "-lpthread".to_owned(), "-ldl".to_owned()];
    assert_eq!(compiled(&source, "-std=c99", "smallest", &archive), "computed: 40 elements of y\n");
}

#[test]
fn the_header_is_cpp_too() {
    let source = Path::new(env!("CARGO_TARGET_TMPDIR")).join("header.cpp");
    std::fs::write(&source, "#include <fused_rnn.h>\nint main() { return frnn_version() == nullptr; }\n")
        .expect("a program");
    let mut compile = Command::new("c++");
    compile.args(["-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I"]);
    compile.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("include")).arg(&source);
    run(&mut compile);
}
