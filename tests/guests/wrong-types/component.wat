;; Exports the policy, with functions of other types.
;;
;; Must come of it: refused at load.
(component
  (core module $m
    (memory (export "memory") 1)
    (func (export "f") (result i32) (i32.const 0)))
  (core instance $m (instantiate $m))
  (func $f (result u32) (canon lift (core func $m "f")))
  (instance $policy (export "configure" (func $f)) (export "evaluate" (func $f)))
  (export "gpu:device-policy/policy@0.1.0" (instance $policy)))
