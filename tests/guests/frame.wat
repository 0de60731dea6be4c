;; What a `policy.wat` is put into: a module of the health-policy world, as a toolchain would leave it. The
;; misdeed is the folder's; where it exports no function of these names, the frame's stands in its place:
;; "configure", "configured" (its post-return), "evaluate", "evaluated", "realloc". "$info" and "$nothing"
;; are the addresses of an answer of either; the rest of the first 64 KiB is free, above is the heap.
;;
;; It knows when it is being tried (design H9), and behaves: "$awake" says whether the device at hand, whose
;; UUID is what the host hands over first, is a real one. Its own "evaluate" is asked of those only.
(module
  (import "gpu:device-policy/host@0.1.0" "log" (func $log (param i32 i32 i32)))
  (import "gpu:device-policy/host@0.1.0" "now-ms" (func $now (result i64)))
  (import "gpu:device-policy/state@0.1.0" "get" (func $get (param i32 i32 i32)))
  (memory (export "memory") 16)
  (global $info i32 (i32.const @info))
  (global $nothing i32 (i32.const @nothing))
  (global $next (mut i32) (i32.const 65536))
  (data (i32.const 4096) "@data")
  (func $bump (param $new i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
    (global.set $next (i32.add (local.get $at) (local.get $new)))
    (local.get $at))
  (func $forget
    (i64.store (i32.const 65536) (i64.const 0))
    (global.set $next (i32.const 65536)))
  (func $awake (result i32)
    ;; "GPU-", and then something else than "00000000".
    (i32.and
      (i32.eq (i32.load (i32.const 65536)) (i32.const 0x2d555047))
      (i64.ne (i64.load (i32.const 65540)) (i64.const 0x3030303030303030))))
  (func (export "gpu:device-policy/policy@0.1.0#evaluate")
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
    (if (call $awake)
      (then (return (call $evaluate
        (local.get 0) (local.get 1) (local.get 2) (local.get 3) (local.get 4) (local.get 5) (local.get 6)
        (local.get 7) (local.get 8) (local.get 9) (local.get 10) (local.get 11) (local.get 12)
        (local.get 13) (local.get 14) (local.get 15)))))
    (global.get $nothing))
  @misdeed
)
