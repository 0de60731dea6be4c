//! Compilation from outside: real processes, compiling real components.

#[cfg(test)]
mod bounds;
#[cfg(test)]
mod cache;
#[cfg(test)]
mod house;
#[cfg(test)]
mod process;
