//! The programs for TC.
#![no_std]
#![no_main]

use aya_ebpf::bindings::__sk_buff;
use loxi_ebpf_programs::ctx::Tc;
use loxi_ebpf_programs::{finish, stage};

macro_rules! programs {
    ($($name:ident => $run:path),+ $(,)?) => {
        $(
            #[unsafe(no_mangle)]
            #[unsafe(link_section = "classifier")]
            fn $name(skb: *mut __sk_buff) -> i32 {
                $run(Tc(skb))
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

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Never reached: the verifier admits no program that could.
    loop {}
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
