//! The programs for XDP.
#![no_std]
#![no_main]

use aya_ebpf::bindings::xdp_md;
use loxi_ebpf_programs::ctx::Xdp;
use loxi_ebpf_programs::{finish, stage};

macro_rules! programs {
    ($($name:ident => $run:path),+ $(,)?) => {
        $(
            #[unsafe(no_mangle)]
            #[unsafe(link_section = "xdp")]
            fn $name(frame: *mut xdp_md) -> i32 {
                $run(Xdp(frame))
            }
        )+
    };
}

programs! {
    entry => stage::entry,
    ingress => stage::ingress,
    conntrack => stage::conntrack,
    service => stage::service,
    egress_policy => stage::egress,
    forward => stage::forward,
    snat => stage::snat,
    ingress_policy => stage::ingress_policy,
    commit => stage::commit::commit,
    send => stage::send,
    neighbor => stage::neighbor,
    revalidate => stage::revalidate,
    related => stage::related,
    encapsulate => stage::encapsulate,
    finish => finish::finish,
}

/// Asks about a frame: what the stub says of others lies before it, as metadata.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
fn ask(frame: *mut xdp_md) -> i32 {
    loxi_ebpf_programs::ctx::ask(Xdp(frame))
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Never reached: the verifier admits no program that could.
    loop {}
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
