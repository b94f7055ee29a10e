//! Tasks in the background.

use futures_util::future::BoxFuture;

pub trait Spawn: Send + Sync + 'static {
    /// Starts `task`. `name` is for logs; whoever needs the end of a task lets the task signal it.
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>);
}

/// Tasks of the surrounding tokio runtime.
pub struct TokioSpawn;

impl Spawn for TokioSpawn {
    fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) {
        // The handle is not needed: dropping it detaches the task.
        drop(tokio::spawn(task));
    }
}

/// Does what may take a moment of the disk's time on the caller's thread, and lets its other tasks go on elsewhere meanwhile
/// where the runtime can do that.
pub fn blocking<T>(work: impl FnOnce() -> T) -> T {
    let many_threads = tokio::runtime::Handle::try_current().is_ok_and(|runtime| {
        runtime.runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread
    });
    if many_threads { tokio::task::block_in_place(work) } else { work() }
}
