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
