//! `kiln boot IMAGE`

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kiln_engine::Failure;
use kiln_vm::{BootRequest, Display, VmEvent};

use super::Context;
use super::machine::{failure, hardware, image, image_format, tools, work};
use super::test::show;
use crate::args::{BootArgs, Screen};

/// Boots an image in a machine to work with; what it writes is thrown away.
pub(crate) fn run(args: &BootArgs, context: &Context<'_>) -> Result<u8, Failure> {
    let request = BootRequest {
        image: image(&args.machine)?,
        image_format: image_format(&args.machine),
        hardware: hardware(&args.machine, context),
        display: match args.display {
            Screen::Auto => Display::Auto {
                desktop_session: context.settings.desktop_session,
            },
            Screen::Gtk => Display::Gtk,
            Screen::Sdl => Display::Sdl,
            Screen::Curses => Display::Curses,
            Screen::Serial => Display::Serial,
            Screen::Vnc => match &args.vnc_address {
                Some(address) => Display::Vnc(address.clone()),
                None => Display::VncSocket,
            },
        },
        kernel_args: args.machine.append.clone(),
        work: work(context)?,
        tools: tools(context)?,
    };
    let cancel = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&cancel);
    context
        .interrupt
        .on_signal(move || flag.store(true, Ordering::SeqCst))?;
    let mut on_event = |event: VmEvent| show(&event, context);
    kiln_vm::boot(&request, &mut on_event, &cancel).map_err(|error| failure(&error))?;
    Ok(0)
}
