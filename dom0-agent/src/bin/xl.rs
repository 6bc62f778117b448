//! The `xl` command; see `dom0_agent::cli`.

fn main() -> std::process::ExitCode {
    dom0_agent::cli::main()
}
