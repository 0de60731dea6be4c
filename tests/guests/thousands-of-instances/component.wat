;; Consists of 5,000 core instances, each with a memory.
;;
;; Must come of it: refused at load.
(component
  (core module $m (memory 1))
  ;;@ repeat 5000 (core instance (instantiate $m))
)
