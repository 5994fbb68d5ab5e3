//! Running one frame through the installed programs without sending it.

use crate::sys::{ANSWERS, Kernel, KernelError, Program, QUESTION, bytes, value};
use loxi_ebpf_layout::scratch::{Answer, Beside, Question};
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

/// Which hook's programs are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    /// Those at TC.
    Tc,
    /// Those at XDP.
    Xdp,
}

/// What the programs said, and the frame as it would leave.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) answer: Answer,
    pub(crate) frame: Vec<u8>,
}

/// Lengths of frames that can be asked about: the kernel wants a whole Ethernet header, and the
/// frame with the room around it in one page.
pub(crate) const LENGTHS: std::ops::RangeInclusive<usize> = 14..=3200;

/// Room for what the programs put in front.
const ROOM: usize = 256;

/// Offset of `cb` in `struct __sk_buff`.
const CB: usize = 48;

/// The last question's number, whoever asked: an answer stays until the same processor gives another.
static LAST: AtomicU32 = AtomicU32::new(0);

/// Asks about frames.
#[derive(Debug)]
pub(crate) struct Asker {
    program: Program,
    hook: Hook,
    /// Whether numbers that were given to a process before this one are out of the way.
    begun: bool,
}

impl Asker {
    /// Asks this program.
    pub(crate) fn new(program: Program, hook: Hook) -> Self {
        Self { program, hook, begun: false }
    }

    /// Whether those at XDP are asked.
    pub(crate) fn is_at_xdp(&self) -> bool {
        self.hook == Hook::Xdp
    }

    /// What becomes of a frame.
    pub(crate) fn ask(
        &mut self,
        kernel: &dyn Kernel,
        frame: &[u8],
        beside: Beside,
        question: &Question,
    ) -> Result<Asked, KernelError> {
        if !self.begun {
            let taken = answers(kernel)?.iter().map(|answer| answer.nonce).max();
            LAST.fetch_max(taken.unwrap_or(0), Ordering::Relaxed);
            self.begun = true;
        }
        // 0 is the number of what nobody asked.
        let nonce = LAST.fetch_add(1, Ordering::Relaxed).wrapping_add(1).max(1);
        let beside = Beside { nonce, ..beside };
        kernel.fill(QUESTION, 0, question);
        let failed = |source| KernelError { call: "run", object: "the entry program".to_owned(), source };
        let room = frame.len() + ROOM;
        let (_, frame, _) = match self.hook {
            Hook::Tc => {
                let mut context = vec![0; CB];
                context.extend_from_slice(bytes(&beside));
                self.program.test(frame, &context, room, 1).map_err(failed)?
            }
            Hook::Xdp => {
                let whole = [bytes(&beside), frame].concat();
                let context = xdp_context(size_of::<Beside>(), whole.len());
                let (action, mut frame, ns) = self.program.test(&whole, &context, room, 1).map_err(failed)?;
                // What lies before the frame comes back with it.
                frame.drain(..size_of::<Beside>().min(frame.len()));
                (action, frame, ns)
            }
        };
        // The program ran on one of the processors.
        let answer = answers(kernel)?.into_iter().find(|answer| answer.nonce == nonce);
        match answer {
            Some(answer) => Ok(Asked { answer, frame }),
            None => Err(failed(io::Error::other("it gave no answer"))),
        }
    }
}

/// What each processor answered last.
fn answers(kernel: &dyn Kernel) -> Result<Vec<Answer>, KernelError> {
    let all = kernel.get(ANSWERS.table, bytes(&0u32))?.unwrap_or_default();
    let each = all.chunks_exact(size_of::<Answer>().next_multiple_of(8));
    Ok(each.filter_map(|bytes| value(&bytes[..size_of::<Answer>()])).collect())
}

/// `struct xdp_md`: where the metadata ends, the frame begins.
fn xdp_context(metadata: usize, length: usize) -> Vec<u8> {
    // data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    [metadata as u32, length as u32, 0, 0, 0, 0].iter().flat_map(|word| word.to_ne_bytes()).collect()
}
