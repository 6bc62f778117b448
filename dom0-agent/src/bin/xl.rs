//! The `xl` command; see `dom0_agent::cli`.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    dom0_agent::cli::main()
}
