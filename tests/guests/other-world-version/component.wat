;; Built for the contract of another day.
;;
;; Must come of it: refused at load, naming both versions.
(component
  (import "gpu:device-policy/host@0.2.0" (instance (export "now-ms" (func (result u64))))))
