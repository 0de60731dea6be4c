//! The policy host with real components: the bundled ones, and small ones that misbehave on purpose.

mod bundled;
mod component;
mod directory;
mod failures;
mod house;
mod loading;
mod state;
