;; Uses features that the host keeps off: 64-bit memory.
;;
;; Must come of it: refused at load.
(component
  (core module $m (memory i64 1))
  (core instance (instantiate $m)))
