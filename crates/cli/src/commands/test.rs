//! `kiln test IMAGE`

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kiln_engine::{Event, Failure, FailureKind};
use kiln_vm::{AccelUsed, Expect, Reason, Report, StageName, TestRequest, Verdict, VmEvent};

use super::Context;
use super::machine::{failure, hardware, image, image_format, shown, tools, work};
use crate::args::{self, TestArgs};
use crate::output;
use crate::render::terminal::Terminal;
use crate::render::text::seconds;
use crate::settings::ProgressStyle;

/// The number of the one step in the event stream.
const STEP: u32 = 0;

/// Boots an image unseen and says whether it comes up; exit code 4 if it does not.
pub(crate) fn run(args: &TestArgs, context: &Context<'_>) -> Result<u8, Failure> {
    let request = request(args, context)?;
    let cancel = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&cancel);
    context
        .interrupt
        .on_signal(move || flag.store(true, Ordering::SeqCst))?;
    start(&request, context.terminal);
    let mut on_event = |event: VmEvent| show(&event, context);
    let report =
        kiln_vm::test(&request, &mut on_event, &cancel).map_err(|error| failure(&error))?;
    end(&report, context.terminal);
    if args.json {
        output::print_json(&report)?;
    }
    match &report.verdict {
        Verdict::Passed => {
            if !args.json && context.settings.progress != ProgressStyle::Json {
                output::print(&format!("{}\n", passed(&request, &report)))?;
            }
            Ok(0)
        }
        Verdict::Failed { reason, detail } => Err(failed(&request, &report, *reason, detail)),
    }
}

fn request(args: &TestArgs, context: &Context<'_>) -> Result<TestRequest, Failure> {
    let mut request = TestRequest::new(
        image(&args.machine)?,
        &args.output,
        work(context)?,
        tools(context)?,
    );
    request.image_format = image_format(&args.machine);
    request.within.clone_from(&context.settings.within);
    request.hardware = hardware(&args.machine, context);
    request.kernel_args.clone_from(&args.machine.append);
    request.allow_failed_units = args.allow_failed_units;
    request.expect = match args.expect {
        args::Expect::Auto => Expect::Auto,
        args::Expect::Desktop => Expect::Desktop,
        args::Expect::Login => Expect::Login,
    };
    if let Some(seconds) = args.timeout {
        request.timeout = Duration::from_secs(seconds.into());
    }
    if let Some(path) = &args.script {
        let script = fs::read_to_string(path).map_err(|error| {
            let message = format!("the script {} cannot be read", path.display());
            Failure::new(FailureKind::Definition, message).cause(error.to_string())
        })?;
        request.script = Some(script);
    }
    Ok(request)
}

/// As many as of a step that failed.
const SCRIPT_LINES: usize = 30;

fn start(request: &TestRequest, terminal: &Terminal) {
    let title = format!(
        "booting {} with {}",
        shown(&request.image),
        request.hardware.firmware.name()
    );
    terminal.event(&Event::StepStarted {
        step: STEP,
        title,
        layer: None,
        why: None,
    });
}

fn end(report: &Report, terminal: &Terminal) {
    let event = match report.passed() {
        true => Event::StepFinished {
            step: STEP,
            seconds: report.seconds,
            summary: report.os.clone(),
        },
        false => Event::StepFailed {
            step: STEP,
            seconds: report.seconds,
        },
    };
    terminal.event(&event);
}

/// Shows what a machine does.
pub(crate) fn show(event: &VmEvent, context: &Context<'_>) {
    let terminal = context.terminal;
    if context.settings.progress == ProgressStyle::Json {
        terminal.json(event);
        return;
    }
    let log = |line: &String, stream: &'static str| Event::Log {
        step: STEP,
        stream: stream.into(),
        line: line.clone(),
    };
    match event {
        VmEvent::Started { firmware, accel } => {
            let accel = match accel {
                AccelUsed::Kvm => "KVM",
                AccelUsed::Tcg => "software emulation",
            };
            terminal.note("machine", &format!("on: {}, {accel}", firmware.name()));
        }
        VmEvent::Stage(stage) => terminal.note(
            "reached",
            &format!("{} ({})", words(stage.name), seconds(stage.seconds)),
        ),
        VmEvent::Console { line } => terminal.event(&log(line, "console")),
        VmEvent::Output { line } => terminal.event(&log(line, "stdout")),
        VmEvent::Warning { message } => {
            terminal.event(&Event::Warning {
                step: None,
                message: message.clone(),
                origin: None,
                hint: None,
            });
        }
        VmEvent::Vnc {
            address,
            password: None,
        } => terminal.note("screen", &format!("over VNC on the socket {address}")),
        VmEvent::Vnc {
            address,
            password: Some(password),
        } => terminal.note(
            "screen",
            &format!("over VNC at {address}, password {password}"),
        ),
    }
}

fn words(stage: StageName) -> &'static str {
    match stage {
        StageName::Firmware => "firmware",
        StageName::BootLoader => "boot loader",
        StageName::Kernel => "kernel",
        StageName::Userspace => "userspace",
        StageName::MultiUser => "multi-user target",
        StageName::Login => "login prompt",
        StageName::Graphical => "graphical target",
        StageName::Session => "graphical session",
        StageName::Windows => "the desktop's windows",
        StageName::Desktop => "desktop, drawn and at rest",
    }
}

fn passed(request: &TestRequest, report: &Report) -> String {
    let what = match report.expect {
        Expect::Desktop => "desktop",
        Expect::Login | Expect::Auto => "login prompt",
    };
    let time = seconds(report.seconds);
    format!(
        "passed: {what} after {time} with {}; see {}",
        report.firmware.name(),
        shown(&request.output)
    )
}

fn failed(request: &TestRequest, report: &Report, reason: Reason, detail: &str) -> Failure {
    let image = shown(&request.image);
    let script = report
        .script
        .as_ref()
        .filter(|_| reason == Reason::ScriptFailed);
    let message = match script {
        Some(_) => format!("{image} comes up, but {}", reason.sentence()),
        None => format!("{image} does not come up: {}", reason.sentence()),
    };
    let mut failure = Failure::new(FailureKind::Step, message).cause(detail);
    failure.status = Some(format!(
        "after {} with {}",
        seconds(report.seconds),
        report.firmware.name()
    ));
    failure.tail = match script {
        Some(script) => last_lines(&script.output),
        None => report.console.clone(),
    };
    failure.hint(format!(
        "the whole console is in {}",
        shown(&request.output.join("serial.log"))
    ))
}

/// The end of what a script printed.
fn last_lines(output: &str) -> Vec<String> {
    let lines: Vec<&str> = output.lines().collect();
    let from = lines.len().saturating_sub(SCRIPT_LINES);
    lines[from..].iter().map(|&line| line.to_owned()).collect()
}
