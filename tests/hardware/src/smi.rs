//! What `nvidia-smi -q -x` says: the vendor's own reader of the same library.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use roxmltree::{Document, Node, ParsingOptions};

/// The whole of it.
#[derive(Debug)]
pub(crate) struct Smi {
    pub(crate) driver: Option<String>,
    pub(crate) cuda: Option<String>,
    /// In NVML's order.
    pub(crate) gpus: Vec<SmiGpu>,
}

/// One GPU: leaves of its tree, by path (`pci/pci_bus_id`), in their order.
#[derive(Debug)]
pub(crate) struct SmiGpu {
    leaves: Vec<(String, String)>,
}

/// In its place a value is absent.
const ABSENT: [&str; 6] = ["", "N/A", "[N/A]", "Not Supported", "None", "Unknown Error"];

impl Smi {
    /// Runs it.
    ///
    /// # Errors
    /// It can't be run, fails, or says something else.
    pub(crate) fn ask(program: &Path) -> Result<Self> {
        let output = Command::new(program)
            .args(["-q", "-x"])
            .output()
            .with_context(|| format!("running {} -q -x", program.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            bail!("{} -q -x: {}: {text}", program.display(), output.status);
        }
        Self::parse(&text)
    }

    /// # Errors
    /// It is not its XML.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let options = ParsingOptions {
            // The DOCTYPE that it begins with; nothing is loaded from it.
            allow_dtd: true,
            ..ParsingOptions::default()
        };
        let document = Document::parse_with_options(text, options).context("nvidia-smi's XML")?;
        let root = document.root_element();
        if !root.has_tag_name("nvidia_smi_log") {
            bail!("nvidia-smi's XML begins with <{}>", root.tag_name().name());
        }
        let gpus = root.children().filter(|node| node.has_tag_name("gpu"));
        Ok(Self {
            driver: leaf(root, "driver_version"),
            cuda: leaf(root, "cuda_version"),
            gpus: gpus.map(SmiGpu::of).collect(),
        })
    }
}

impl SmiGpu {
    fn of(gpu: Node<'_, '_>) -> Self {
        let mut leaves = Vec::new();
        collect(gpu, "", &mut leaves);
        Self { leaves }
    }

    pub(crate) fn uuid(&self) -> &str {
        self.raw("uuid").unwrap_or_default()
    }

    fn raw(&self, path: &str) -> Option<&str> {
        let mut leaves = self.leaves.iter();
        leaves
            .find(|(known, _)| known == path)
            .map(|(_, value)| value.as_str())
    }

    /// The first of these that is told; names have changed from driver to driver.
    pub(crate) fn told(&self, paths: &[&str]) -> Option<&str> {
        let told = paths.iter().filter_map(|path| self.raw(path));
        told.map(str::trim).find(|value| !ABSENT.contains(value))
    }

    /// The same, without its unit: `700.00 W`, `81559 MiB`, `16x`.
    pub(crate) fn number(&self, paths: &[&str]) -> Option<f64> {
        let told = self.told(paths)?;
        let is_part = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-');
        let end = told.find(|c: char| !is_part(c)).unwrap_or(told.len());
        told.get(..end)?.parse().ok()
    }

    /// All that is told under that path, as often as it is there.
    pub(crate) fn every(&self, path: &str) -> Vec<&str> {
        let leaves = self.leaves.iter().filter(|(known, _)| known == path);
        let values = leaves.map(|(_, value)| value.trim());
        values.filter(|value| !ABSENT.contains(value)).collect()
    }
}

fn collect(node: Node<'_, '_>, path: &str, leaves: &mut Vec<(String, String)>) {
    for child in node.children().filter(Node::is_element) {
        let name = child.tag_name().name();
        let path = if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}/{name}")
        };
        if child.children().any(|node| node.is_element()) {
            collect(child, &path, leaves);
        } else {
            leaves.push((path, child.text().unwrap_or_default().to_owned()));
        }
    }
}

fn leaf(node: Node<'_, '_>, name: &str) -> Option<String> {
    let child = node.children().find(|node| node.has_tag_name(name))?;
    let text = child.text()?.trim();
    (!ABSENT.contains(&text)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = r#"<?xml version="1.0" ?>
<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">
<nvidia_smi_log>
  <driver_version>580.82.07</driver_version>
  <cuda_version>13.0</cuda_version>
  <gpu id="00000000:1B:00.0">
    <uuid>GPU-1</uuid>
    <serial>N/A</serial>
    <gpu_power_readings><max_power_limit>700.00 W</max_power_limit></gpu_power_readings>
    <temperature><gpu_temp_max_tlimit_threshold>-8 C</gpu_temp_max_tlimit_threshold></temperature>
    <mig_devices><mig_device><gpu_instance_id>7</gpu_instance_id></mig_device>
      <mig_device><gpu_instance_id>9</gpu_instance_id></mig_device></mig_devices>
  </gpu>
</nvidia_smi_log>"#;

    #[test]
    fn leaves_are_found_by_path_and_absent_ones_are_absent() {
        let smi = Smi::parse(LOG).unwrap();
        assert_eq!(smi.driver.as_deref(), Some("580.82.07"));
        let gpu = smi.gpus.first().unwrap();
        assert_eq!(gpu.told(&["serial"]), None);
        let power = [
            "power_readings/max_power_limit",
            "gpu_power_readings/max_power_limit",
        ];
        assert_eq!(gpu.number(&power), Some(700.0));
        let limit = "temperature/gpu_temp_max_tlimit_threshold";
        assert_eq!(gpu.number(&[limit]), Some(-8.0));
        assert_eq!(
            gpu.every("mig_devices/mig_device/gpu_instance_id"),
            ["7", "9"]
        );
        assert_eq!(gpu.uuid(), "GPU-1");
    }

    #[test]
    fn another_document_is_refused() {
        let error = Smi::parse("<html/>").unwrap_err().to_string();
        assert!(error.contains("<html>"), "{error}");
        assert!(Smi::parse("NVIDIA-SMI has failed").is_err());
    }
}
