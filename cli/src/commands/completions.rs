//! `devicectl completions`: what a shell is to source, so that Tab knows the commands.

use std::io::Write;

use clap::CommandFactory as _;
use clap_complete::Shell as Generated;

use crate::args::{Args, Shell};
use crate::failure::Failure;
use crate::output::Output;

pub(super) fn run<W: Write>(shell: Shell, out: &mut Output<W>) -> Result<(), Failure> {
    let generated = match shell {
        Shell::Bash => Generated::Bash,
        Shell::Zsh => Generated::Zsh,
        Shell::Fish => Generated::Fish,
    };
    // Into memory: it would panic where nobody reads our output any more.
    let mut script = Vec::new();
    let mut command = Args::command();
    clap_complete::generate(generated, &mut command, "devicectl", &mut script);
    out.print(|to, _| to.write_all(&script))
}
