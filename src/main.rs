//! The `router` binary: builds the runtime and hands over to the command line.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = router::cli::Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return router::cli::fail(
                &anyhow::Error::new(error).context("cannot start the runtime"),
            );
        }
    };
    match runtime.block_on(router::cli::run(cli)) {
        Ok(code) => code,
        Err(error) => router::cli::fail(&error),
    }
}
