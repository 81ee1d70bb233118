//! The same work on many things, several at once.

use super::Result;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Does `work` on each of 0 to `count`, in at most `threads` threads; the results are in this
/// order. After a failure nothing new is begun.
///
/// # Errors
/// One of the failures of `work`.
pub(super) fn each<T: Send>(
    count: usize,
    threads: usize,
    work: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let run = || -> Result<Vec<(usize, T)>> {
        let mut done = Vec::new();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= count {
                return Ok(done);
            }
            match work(i) {
                Ok(result) => done.push((i, result)),
                Err(e) => {
                    next.store(count, Ordering::Relaxed);
                    return Err(e);
                }
            }
        }
    };
    let done = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.min(count)).map(|_| scope.spawn(run)).collect();
        let join = |t: std::thread::ScopedJoinHandle<'_, _>| {
            t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect::<Result<Vec<_>>>()
    });
    let mut all: Vec<_> = done?.into_iter().flatten().collect();
    all.sort_unstable_by_key(|(i, _)| *i);
    Ok(all.into_iter().map(|(_, result)| result).collect())
}

/// How many threads the machine runs at once.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::super::Error;
    use super::*;

    #[test]
    fn in_order_and_until_a_failure() {
        assert_eq!(each(5, 3, |i| Ok(i * 2)).unwrap(), [0, 2, 4, 6, 8]);
        assert!(each(0, 3, Ok).unwrap().is_empty());
        let begun = AtomicUsize::new(0);
        let failing = each(1000, 1, |i| {
            begun.fetch_add(1, Ordering::Relaxed);
            if i == 3 { Err(Error::NoPackage { name: "x".to_string() }) } else { Ok(i) }
        });
        assert!(matches!(failing, Err(Error::NoPackage { .. })));
        assert_eq!(begun.into_inner(), 4);
    }
}
