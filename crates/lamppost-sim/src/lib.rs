//! Simulated worlds, for tests only.
//!
//! [`SimulatedDisk`] keeps files in memory, knows what a sync has made durable, and tells what a
//! power cut after any of its operations may leave behind. Everything is drawn by a [`Lot`] from a
//! seed: the same seed gives the same world.

mod disk;
mod lot;
mod names;
mod operation;
mod silent;
mod world;

pub use disk::{Lie, SimulatedDisk};
pub use lot::Lot;
pub use names::FileSystemKind;
pub use operation::Operation;
pub use silent::{Quiet, SilentDisk};
pub use world::World;
