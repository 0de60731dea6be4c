//! The boundary from outside: real components, written as WebAssembly text, run in a small world.

#[cfg(test)]
mod calls;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod load;
#[cfg(test)]
mod ticker;
#[cfg(test)]
mod world;
