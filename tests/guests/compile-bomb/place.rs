//! Seventeen megabytes of code that would keep a compiler busy for an hour: each function has a thousand
//! variables, all alive across five thousand branches, and register allocation is worse than linear in that.
//!
//! Must come of it: nobody waits for it. It is compiled in a process of its own, with a deadline, a bound on
//! its memory and what is left of the processors.

use std::path::Path;

use anyhow::Result;

const FUNCTIONS: u32 = 200;
const VARIABLES: u32 = 1_000;
const BRANCHES: u32 = 5_000;

pub(super) fn place(at: &Path) -> Result<()> {
    let number = super::leb128;
    let mut body = [number(1), number(VARIABLES), vec![0x7f]].concat();
    for branch in 0..BRANCHES {
        let (one, other) = (
            number(1 + branch * 7 % VARIABLES),
            number(1 + branch * 13 % VARIABLES),
        );
        // (block (br_if 0 (local.get ONE)) (local.set ONE (i32.add (local.get OTHER) (local.get ONE))))
        body.extend([&[0x02, 0x40, 0x20], &one[..], &[0x0d, 0, 0x20], &other].concat());
        body.extend([&[0x20], &one[..], &[0x6a, 0x21], &one, &[0x0b]].concat());
    }
    // (local.get 1), end
    body.extend([0x20, 1, 0x0b]);
    let function = [number(u32::try_from(body.len())?), body].concat();
    let code = [number(FUNCTIONS), function.repeat(FUNCTIONS as usize)].concat();
    let functions = [number(FUNCTIONS), vec![0; FUNCTIONS as usize]].concat();

    let mut module = b"\0asm\x01\0\0\0".to_vec();
    // One type: i32 to i32.
    super::section(&mut module, 1, &[1, 0x60, 1, 0x7f, 1, 0x7f])?;
    super::section(&mut module, 3, &functions)?;
    super::section(&mut module, 10, &code)?;
    let mut component = b"\0asm\x0d\0\x01\0".to_vec();
    super::section(&mut component, 1, &module)?;
    Ok(std::fs::write(at, component)?)
}
