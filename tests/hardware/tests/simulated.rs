//! The check itself, over simulated GPUs and an nvidia-smi that says what is written here.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a panic is a failed test"
)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use nvml_sim::profile::{Identity, Profile};

const GPUS: u32 = 2;

/// What nvidia-smi prints on an H100, cut to what is compared.
fn smi(gpu: &Identity) -> String {
    format!(
        r#"  <gpu id="0000{pci}">
    <product_name>NVIDIA H100 80GB HBM3</product_name>
    <product_architecture>Hopper</product_architecture>
    <mig_mode><current_mig>Disabled</current_mig><pending_mig>Disabled</pending_mig></mig_mode>
    <mig_devices>None</mig_devices>
    <serial>{serial}</serial>
    <uuid>{uuid}</uuid>
    <minor_number>{index}</minor_number>
    <pci>
      <pci_bus_id>0000{pci}</pci_bus_id>
      <pci_gpu_link_info>
        <pcie_gen><max_link_gen>5</max_link_gen></pcie_gen>
        <link_widths><max_link_width>16x</max_link_width></link_widths>
      </pci_gpu_link_info>
      <replay_counter>0</replay_counter>
    </pci>
    <fb_memory_usage><total>81559 MiB</total></fb_memory_usage>
    <temperature>
      <gpu_temp_max_threshold>92 C</gpu_temp_max_threshold>
      <gpu_temp_slow_threshold>89 C</gpu_temp_slow_threshold>
    </temperature>
    <gpu_power_readings>
      <current_power_limit>700.00 W</current_power_limit>
      <default_power_limit>700.00 W</default_power_limit>
      <min_power_limit>200.00 W</min_power_limit>
      <max_power_limit>700.00 W</max_power_limit>
    </gpu_power_readings>
    <remapped_rows><remapped_row_corr>0</remapped_row_corr><remapped_row_unc>0</remapped_row_unc></remapped_rows>
    <retired_pages><double_bit_retirement><retired_count>N/A</retired_count></double_bit_retirement></retired_pages>
    <fabric><state>Completed</state><cliqueId>0</cliqueId></fabric>
  </gpu>
"#,
        pci = gpu.pci,
        serial = gpu.serial,
        uuid = gpu.uuid,
        index = gpu.index,
    )
}

/// A program that prints it, with `from` written as `to`.
fn nvidia_smi(folder: &Path, from: &str, to: &str) -> std::path::PathBuf {
    let profile = Profile::named("h100").unwrap();
    let gpus = (0..GPUS).map(|index| smi(&profile.gpu(index).unwrap()));
    let log = format!(
        "<nvidia_smi_log>\n  <driver_version>580.82.07</driver_version>\n  <cuda_version>13.0</cuda_version>\n{}</nvidia_smi_log>\n",
        gpus.collect::<String>()
    );
    assert!(log.contains(from), "nothing is wrong without {from:?}");
    let program = folder.join("nvidia-smi");
    let text = format!("#!/bin/sh\ncat <<'END'\n{}END\n", log.replace(from, to));
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    program
}

fn check(folder: &Path, nvidia_smi: &Path, args: &[&str]) -> (Output, String) {
    let report = folder.join("report.md");
    let output = Command::new(env!("CARGO_BIN_EXE_hardware-check"))
        .arg("--nvml-library")
        .arg(nvml_sim::find_library().unwrap())
        .arg("--nvidia-smi")
        .arg(nvidia_smi)
        .arg("--report")
        .arg(&report)
        .args(args)
        .env("NVML_SIM_GPUS", GPUS.to_string())
        .env("NVML_SIM_SOCKET", folder.join("sim.sock"))
        .output()
        .unwrap();
    (output, fs::read_to_string(report).unwrap_or_default())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_gpu_that_is_as_nvidia_smi_says_passes_up_to_an_applications_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let smi = nvidia_smi(folder.path(), "Hopper", "Hopper");
    // The driver's answer to a mistake.
    let sim = device_api_tests::binary("nvml-sim").unwrap();
    let mistake = folder.path().join("mistake");
    let socket = folder.path().join("sim.sock");
    let text = format!(
        "#!/bin/sh\nexec {} --socket {} xid --gpu 0 31\n",
        sim.display(),
        socket.display()
    );
    fs::write(&mistake, text).unwrap();
    fs::set_permissions(&mistake, Permissions::from_mode(0o755)).unwrap();
    let (output, report) = check(
        folder.path(),
        &smi,
        &["--provoke", &mistake.to_string_lossy()],
    );
    assert_eq!(output.status.code(), Some(0), "{}{report}", said(&output));
    for row in [
        "| GPU 1 PCIe width max | 16 | 16 | ok |",
        "| GPU 0 power limit min, W | 200.00 | 200.00 | ok |",
        "| NVML's event, as an incident | XID 31 |",
        "| memory.total | 81559 | 81559, at most 1 apart | ok |",
    ] {
        assert!(report.contains(row), "no {row} in {report}");
    }
}

#[test]
fn what_differs_is_named_and_fails() {
    let folder = tempfile::tempdir().unwrap();
    let smi = nvidia_smi(folder.path(), "16x", "8x");
    let (output, report) = check(folder.path(), &smi, &["--no-mistake"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let named = "WRONG GPU 1 PCIe width max: 16 (held against: 8)";
    assert!(said(&output).contains(named), "{}", said(&output));
    assert!(
        report.contains("| GPU 0 PCIe width max | 16 | 8 | WRONG |"),
        "{report}"
    );
}

#[test]
fn a_machine_without_a_gpu_is_no_failure_of_ours() {
    let folder = tempfile::tempdir().unwrap();
    let (output, report) = check(folder.path(), &folder.path().join("none"), &[]);
    assert_eq!(output.status.code(), Some(3));
    assert!(said(&output).contains("needs a machine with an NVIDIA GPU"));
    assert_eq!(report, "");
}
