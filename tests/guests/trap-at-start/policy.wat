;; Traps in the start function.
;;
;; Must come of it: refused at load.
(func $start unreachable)
(start $start)
