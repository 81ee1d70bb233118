//! The shipimg binary: parse, call, map an error to an exit code.

fn main() -> std::process::ExitCode {
    shipimg::cli::main()
}
