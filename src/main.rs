//! The shipimg binary: parse, call, map an error to an exit code; inside a container its init process.

fn main() -> std::process::ExitCode {
    shipimg::run::reap_if_asked();
    shipimg::cli::main()
}
