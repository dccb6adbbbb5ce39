//! The AWS query protocol of the fake: form-encoded POST, XML answers, one request per connection.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::{GLOBAL_TIMEOUT_HEARTBEATS, HEARTBEAT_TIMEOUT, Instance, Lifecycle, Shared};

impl Shared {
    pub(super) fn serve(&self, mut stream: TcpStream) -> anyhow::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") && request.len() < 16_384 {
            stream.read_exact(&mut byte)?;
            request.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&request).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).context("no length")?;
        let length: usize = length.trim().parse()?;
        ensure!(length <= 65_536, "a body of {length} bytes");
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        let (status, xml) = self.respond(&String::from_utf8_lossy(&body));
        self.changed.notify_all();
        write!(
            stream,
            "HTTP/1.1 {status} x\r\ncontent-type: text/xml\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{xml}",
            xml.len()
        )?;
        Ok(())
    }

    fn respond(&self, form: &str) -> (u16, String) {
        let value =
            |key: &str| form.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('=')).unwrap_or_default();
        let action = value("Action");
        if !ACTIONS.contains(&action) {
            // Includes actions of other services if the fake replaces all of AWS.
            return error(400, "InvalidAction", "the fake does not support this action");
        }
        let mut state = self.lock();
        state.actions.push(action.to_owned());
        if state.remaining_failures > 0 {
            state.remaining_failures -= 1;
            return error(500, "InternalFailure", "an error of the fake");
        }
        if action == "DescribeLifecycleHooks" {
            return ok(
                action,
                &format!("<LifecycleHooks>{}</LifecycleHooks>", hooks_xml(value("AutoScalingGroupName"))),
            );
        }
        let id = match action {
            "SetInstanceProtection" | "DescribeAutoScalingInstances" => value("InstanceIds.member.1"),
            _ => value("InstanceId"),
        };
        let Some(instance) = state.instances.get_mut(id) else {
            return error(400, "ValidationError", &format!("The instance {id} is not part of an Auto Scaling group."));
        };
        let hook = value("LifecycleHookName");
        match action {
            "CompleteLifecycleAction" | "RecordLifecycleActionHeartbeat" if instance.active_hook() != Some(hook) => {
                error(400, "ValidationError", &format!("No active Lifecycle Action found with instance ID {id}"))
            }
            "CompleteLifecycleAction" => {
                instance.completed = true;
                instance.finish_hook(value("LifecycleActionResult") == "CONTINUE");
                ok(action, "")
            }
            "RecordLifecycleActionHeartbeat" => {
                instance.record_heartbeat();
                ok(action, "")
            }
            "SetInstanceProtection" if instance.lifecycle != Lifecycle::InService => {
                let why = format!("The instance {id} is not in InService or EnteringStandby or Standby.");
                error(400, "ValidationError", &why)
            }
            "SetInstanceProtection" => {
                instance.protected = value("ProtectedFromScaleIn") == "true";
                ok(action, "")
            }
            _ => ok(action, &format!("<AutoScalingInstances>{}</AutoScalingInstances>", instance_xml(id, instance))),
        }
    }
}

fn instance_xml(id: &str, instance: &Instance) -> String {
    let (group, protected) = (&instance.group, instance.protected);
    let state = match instance.lifecycle {
        Lifecycle::PendingWait => "Pending:Wait".to_owned(),
        Lifecycle::InService => "InService".to_owned(),
        Lifecycle::TerminatingWait => "Terminating:Wait".to_owned(),
        Lifecycle::Terminated => "Terminated".to_owned(),
        Lifecycle::WarmedPendingWait | Lifecycle::WarmedReturnWait => "Warmed:Pending:Wait".to_owned(),
        Lifecycle::Warmed => format!("Warmed:{}", instance.pool_state.unwrap_or_default()),
        Lifecycle::WarmedTerminatingWait => "Warmed:Terminating:Wait".to_owned(),
    };
    format!(
        "<member><InstanceId>{id}</InstanceId><AutoScalingGroupName>{group}</AutoScalingGroupName>\
         <AvailabilityZone>eu-central-1a</AvailabilityZone><LifecycleState>{state}</LifecycleState>\
         <HealthStatus>HEALTHY</HealthStatus><ProtectedFromScaleIn>{protected}</ProtectedFromScaleIn></member>"
    )
}

/// Describes the two lifecycle hooks that every group has.
fn hooks_xml(group: &str) -> String {
    let hook = |name: &str, transition: &str| {
        let (heartbeat_secs, global_secs) =
            (HEARTBEAT_TIMEOUT.as_secs(), HEARTBEAT_TIMEOUT.as_secs() * u64::from(GLOBAL_TIMEOUT_HEARTBEATS));
        format!(
            "<member><LifecycleHookName>{name}</LifecycleHookName><AutoScalingGroupName>{group}</AutoScalingGroupName>\
             <LifecycleTransition>autoscaling:EC2_INSTANCE_{transition}</LifecycleTransition><DefaultResult>ABANDON</DefaultResult>\
             <HeartbeatTimeout>{heartbeat_secs}</HeartbeatTimeout><GlobalTimeout>{global_secs}</GlobalTimeout></member>"
        )
    };
    hook("launching", "LAUNCHING") + &hook("terminating", "TERMINATING")
}

fn ok(action: &str, result: &str) -> (u16, String) {
    let name = "xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\"";
    let meta = "<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata>";
    (200, format!("<{action}Response {name}><{action}Result>{result}</{action}Result>{meta}</{action}Response>"))
}

fn error(status: u16, code: &str, message: &str) -> (u16, String) {
    let error = format!("<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>");
    (status, format!("<ErrorResponse>{error}<RequestId>1</RequestId></ErrorResponse>"))
}

/// Actions that the fake supports.
const ACTIONS: [&str; 5] = [
    "DescribeLifecycleHooks",
    "CompleteLifecycleAction",
    "RecordLifecycleActionHeartbeat",
    "SetInstanceProtection",
    "DescribeAutoScalingInstances",
];
