;; Hands the host a line for the log that has four gigabytes, as it says.
;;
;; Must come of it: a failure of the call, and nothing logged.
(func (export "evaluate") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (call $log (i32.const 3) (i32.const 0) (i32.const -1))
  (global.get $nothing))
